"""The error codes of the source, found where they are raised: code, whose fault, and the sentence.

Only the syntax tree is read, so a code must stand as a plain string where the error is made; one that is
put together at run time is shown with its changing part as ``{…}``.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

KINDS = {
    "PeerError": (
        "The other side",
        "It broke the protocol. Nothing of ours has changed; the connection may be closed.",
    ),
    "UsageError": ("You", "The sentence says what would work."),
    "Unavailable": ("Nobody, perhaps", "A part does not answer at the moment. Trying again later may work."),
    "Reason": (
        "Why it ended, waits or was refused",
        "What one peer tells the other, or a node its user, about a lease or a channel.",
    ),
}
"""Class of domain/errors.py or domain/reason.py: whose fault it is, and what follows from it."""
KIND_OF = {**{kind: kind for kind in KINDS}, "decoded": "PeerError", "Form": "PeerError"}
"""What a call with a code and a sentence raises: of the last two (protocol/reading.py, protocol/signed.py) it is said
what they were given."""
SKIPPED = {"testing", "sim"}


class Raised(NamedTuple):
    kind: str
    code: str
    sentence: str


def raised_in(source: str) -> Iterator[Raised]:
    nodes = list(ast.walk(ast.parse(source)))
    for scope in nodes:
        if isinstance(scope, ast.ClassDef):  # a subclass gives its fixed code to super().__init__
            for kind in KINDS.keys() & {name_of(base) for base in scope.bases}:
                yield from (
                    found for call in calls(ast.walk(scope), {"__init__"}) if (found := read(kind, call, {}))
                )
        elif isinstance(scope, FUNCTIONS):
            inside = list(ast.walk(scope))
            words = assigned(inside)
            yield from (
                found
                for call in calls(inside, KIND_OF)
                if (found := read(KIND_OF[name_of(call.func)], call, words))
            )
        elif isinstance(scope, ast.Assign) and isinstance(scope.value, ast.Call):  # a constant of the module
            yield from (
                found
                for call in calls([scope.value], KIND_OF)
                if (found := read(KIND_OF[name_of(call.func)], call, {}))
            )


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def calls(nodes: Iterable[ast.AST], names: Container[str]) -> Iterator[ast.Call]:
    for node in nodes:
        if isinstance(node, ast.Call) and node.args and name_of(node.func) in names:
            yield node


def assigned(nodes: Iterable[ast.AST]) -> dict[str, str]:
    """Sentences that a function puts into a name before it raises."""
    found = {}
    for node in nodes:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and (text := text_of(node.value))
        ):
            found[node.targets[0].id] = text
    return found


def read(kind: str, call: ast.Call, words: dict[str, str]) -> Raised | None:
    code = text_of(call.args[0])
    if code is None or " " in code:  # click's own errors have a sentence alone
        return None
    told = call.args[1] if len(call.args) > 1 else None
    sentence = words.get(told.id) if isinstance(told, ast.Name) else text_of(told) if told else None
    return Raised(kind, code, sentence or "")


def name_of(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def text_of(node: ast.expr) -> str | None:
    """The text of a string, with what is filled in later as {…}; None for anything else."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(text_of(part) or "{…}" for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return (text_of(left) or "{…}") + (text_of(right) or "{…}")
        case _:
            return None


def all_raised(source: Path) -> dict[str, dict[str, list[str]]]:
    """kind -> code -> sentences, all sorted."""
    found: dict[str, dict[str, set[str]]] = {kind: defaultdict(set) for kind in KINDS}
    for path in sorted(source.rglob("*.py")):
        if SKIPPED & set(path.relative_to(source).parts):
            continue
        for error in raised_in(path.read_text()):
            found[error.kind][error.code].add(error.sentence)
    return {kind: {code: sorted(codes[code]) for code in sorted(codes)} for kind, codes in found.items()}


def page(source: Path) -> str:
    lines = [
        "# Errors",
        "",
        "<!-- Made by script/docs from the source: do not edit. -->",
        "",
        "Every error has a code that stays, and a sentence that may change. A code says what happened; the table it",
        "stands in says whose fault it is.",
    ]
    for kind, codes in all_raised(source).items():
        fault, advice = KINDS[kind]
        lines += ["", f"## {fault} (`{kind}`)", "", advice, "", "| Code | Sentence |", "| --- | --- |"]
        for code, sentences in codes.items():
            told = "<br>".join(escape(sentence) for sentence in sentences if sentence)
            lines.append(f"| `{code}` | {told} |")
    return "\n".join(lines) + "\n"


def escape(sentence: str) -> str:
    return " ".join(sentence.split()).replace("|", "\\|").replace("<", "&lt;")
