"""Small lies in our own source, one at a time: what a test suite is measured with.

Each is one changed operator, number, text, condition, keyword or statement. Messages to people are left alone.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
}


@dataclass(frozen=True)
class Mutant:
    path: Path
    line: int
    what: str
    function: tuple[str, int] | None
    """Qualified name and first line of the outermost function it is in; None at the level of a module or class."""
    key: tuple[object, ...]
    number: int

    def __str__(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}:{self.line}: {self.what}"

    def compile(self) -> CodeType:
        tree = ast.parse(self.path.read_text())
        place = next(place for place in _places(tree, None) if place.key == self.key)
        list(_changes(place.node))[self.number].apply()
        return compile(ast.fix_missing_locations(tree), str(self.path), "exec")


def mutants(path: Path) -> Iterator[Mutant]:
    for place in _places(ast.parse(path.read_text()), None):
        for number, change in enumerate(_changes(place.node)):
            yield Mutant(path, change.line, str(change), place.function, place.key, number)


@dataclass(frozen=True)
class _Place:
    node: ast.AST
    function: tuple[str, int] | None
    key: tuple[object, ...]


def _places(node: ast.AST, function: tuple[str, int] | None, prefix: str = "") -> Iterator[_Place]:
    """Every node that may be changed, with the function it belongs to."""
    for field, child in _children(node):
        if isinstance(child, ast.FunctionDef) and function is None:
            first = min(n.lineno for n in (child, *child.decorator_list))
            inside = (prefix + child.name, first)
            yield from _place(child, inside)
            for statement in child.body:
                yield from _place(statement, inside)
                yield from _places(statement, inside)
        elif isinstance(child, ast.ClassDef):
            yield from _places(child, function, f"{prefix}{child.name}.")
        elif field not in ("annotation", "returns", "decorator_list", "bases", "args"):
            yield from _place(child, function)
            yield from _places(child, function, prefix)
        elif field == "args" and isinstance(node, ast.Call):
            yield from _place(child, function)
            yield from _places(child, function, prefix)


def _place(node: ast.AST, function: tuple[str, int] | None) -> Iterator[_Place]:
    if hasattr(node, "lineno"):
        span = (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)
        yield _Place(node, function, (*span, type(node).__name__))


def _children(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """But for text for people. The code of an error is none: it is its first argument."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        yield from (("code", code) for code in node.exc.args[:1] if isinstance(code, ast.Constant))
        return
    if isinstance(node, ast.Raise | ast.JoinedStr) or _is_prose(node):
        return
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield field, child


def _is_prose(node: ast.AST) -> bool:
    """A docstring, an assertion (it is not there for what it does), an import or what only type checkers read."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return True
    return isinstance(node, ast.Assert | ast.Import | ast.ImportFrom)


@dataclass(frozen=True)
class _Change:
    node: ast.AST
    field: str
    value: object
    index: int | None = None

    def apply(self) -> None:
        if self.index is None:
            setattr(self.node, self.field, self.value)
        elif self.value is None:
            del getattr(self.node, self.field)[self.index]
        else:
            getattr(self.node, self.field)[self.index] = self.value

    @property
    def line(self) -> int:
        changed = self.node if self.index is None else getattr(self.node, self.field)[self.index]
        return getattr(changed, "lineno", getattr(self.node, "lineno", 0))

    def __str__(self) -> str:
        before = copy.deepcopy(self.node)
        after = copy.deepcopy(self.node)
        _Change(after, self.field, self.value, self.index).apply()
        return f"{_short(before)}  ->  {_short(after)}"


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(ast.fix_missing_locations(node)).split())
    return text if len(text) <= 90 else text[:87] + "..."


def _changes(node: ast.AST) -> Iterator[_Change]:
    match node:
        case ast.Compare(ops=ops):
            for n, op in enumerate(ops):
                yield _Change(node, "ops", _COMPARE[type(op)](), n)
        case ast.BinOp(op=op) if type(op) in _BINARY:
            yield _Change(node, "op", _BINARY[type(op)]())
        case ast.BoolOp(op=op):
            yield _Change(node, "op", ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.USub()):
            yield _Change(node, "op", ast.UAdd())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield _Change(node, "operand", ast.UnaryOp(ast.Not(), operand))
        case ast.Constant(value=value):
            yield from _constants(node, value)
        case ast.If(test=test) | ast.IfExp(test=test) if not isinstance(
            test, ast.Compare | ast.BoolOp | ast.UnaryOp
        ):
            yield _Change(node, "test", ast.UnaryOp(ast.Not(), test))
        case ast.Call(func=ast.Name(id="replace")):
            for n in range(len(node.keywords)):
                yield _Change(node, "keywords", None, n)
    yield from _statements(node)


def _constants(node: ast.Constant, value: object) -> Iterator[_Change]:
    if value is True or value is False:
        yield _Change(node, "value", not value)
    elif isinstance(value, int):
        yield _Change(node, "value", value + 1)
        if value > 0:
            yield _Change(node, "value", value - 1)
    elif isinstance(value, bytes) and value:
        yield _Change(node, "value", value[:-1] + bytes([value[-1] ^ 1]))
    elif isinstance(value, str) and value and " " not in value and value != "little":
        yield _Change(node, "value", value + "x")


def _statements(node: ast.AST) -> Iterator[_Change]:
    for field in ("body", "orelse"):
        for n, statement in enumerate(getattr(node, field, None) or []) if _is_block(node) else ():
            if isinstance(statement, ast.Raise | ast.AugAssign) or (
                isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
            ):
                yield _Change(node, field, ast.Pass(), n)


def _is_block(node: ast.AST) -> bool:
    return isinstance(node, ast.If | ast.For | ast.While | ast.FunctionDef | ast.With)
