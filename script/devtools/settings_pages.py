"""The pages on settings, made from where the settings are declared: config.md and labels.md of docs/reference.

Only the syntax tree is read, so that it runs without the project's dependencies. The rule: a field without a
docstring is an error here, for there would be nothing to say about it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CONFIG_HEAD = """\
# Configuration

<!-- Made by script/docs from src/dockage/daemon/config.py: do not edit. -->

A node reads `config.toml` in its home (`--home`, the environment's `DOCKAGE_HOME`, or `~/.dockage`) when it
starts. Every field has a default; an empty file is a valid one. Flags of `dockage daemon` and `dockage provide`
override the file, and `--set SECTION.FIELD=VALUE` does so for any field. A field that does not exist, or a value
that does not fit, stops the node before it has done anything, with the field's name.

```toml
[node]
seeds = ["KEY@203.0.113.7:4711"]

[provider]
enabled = true
region = "eu"

[bitcoin]
network = "signet"
cookie = "~/.bitcoin/signet/.cookie"
```
"""

LABELS_HEAD = """\
# Labels

<!-- Made by script/docs from src/dockage/daemon/wishes.py: do not edit. -->

What Docker has no word for is said by labels, on a container (`docker run --label`) or on a service of a compose
project (`labels:`). The first container of a deployment decides where its lease is rented; without labels the
cheapest offer that fits is taken. `dockage.public`, `dockage.host` and `dockage.reserved-cpus` are about
the service that they stand on ([an app on the internet](../howto/on-the-internet.md)); all others are about the whole
deployment. A label that begins with `dockage.` and is not listed here is refused.

```yaml
services:
  web:
    image: nginx
    labels:
      dockage.region: eu
      dockage.max-price: "40"
```
"""


LIMITS_HEAD = """\
# Limits

<!-- Made by script/docs from src/dockage/wire/limits.py and src/dockage/adapters/dht/limits.py: do not edit. -->

What strangers can make a node hold or wait for. Times are in seconds, sizes in bytes. What happens beyond a limit is
said with it, or in the [specification](../spec/01-frames.md).
"""
LIMITS = {
    "The link": ("wire/limits.py", "LinkLimits"),
    "The relay": ("wire/limits.py", "RelayLimits"),
    "Messages": ("wire/limits.py", "PeerLimits"),
    "The market's directory": ("adapters/dht/limits.py", "Limits"),
}


class Field(NamedTuple):
    name: str
    type: str
    default: str
    says: str


def config_page(source: Path) -> str:
    tree = ast.parse((source / "dockage/daemon/config.py").read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    limits = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    parts = [CONFIG_HEAD]
    for section in fields(classes["Config"], limits):
        parts.append(f"## `[{section.name}]`\n\n{section.says}\n")
        found = fields(classes[section.type], limits)
        rows = [f"| `{f.name}` | {f.type} | {f.default} | {f.says} |" for f in found]
        head = ["| Field | Type | Default | Meaning |", "| --- | --- | --- | --- |"]
        parts.append("\n".join([*head, *rows]) + "\n")
    return "\n".join(parts)


def labels_page(source: Path) -> str:
    tree = ast.parse((source / "dockage/daemon/wishes.py").read_text())
    (wishes,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    rows = []
    for field in fields(wishes, {}):
        label, _, says = field.says.partition(": ")
        rows.append(f"| {label} | {says} | {field.default} |")
    return (
        LABELS_HEAD + "\n" + "\n".join(["| Label | Meaning | Default |", "| --- | --- | --- |", *rows]) + "\n"
    )


def limits_page(source: Path) -> str:
    parts = [LIMITS_HEAD]
    for title, (path, name) in LIMITS.items():
        body = ast.parse((source / "dockage" / path).read_text()).body
        (owner,) = [node for node in body if isinstance(node, ast.ClassDef) and node.name == name]
        rows = [f"| `{f.name}` | {_number(f.default)} | {f.says} |" for f in fields(owner, {}, strict=False)]
        parts.append(
            "\n".join([f"## {title}\n", "| Limit | Value | Meaning |", "| --- | --- | --- |", *rows]) + "\n"
        )
    return "\n".join(parts)


def _number(text: str) -> str:
    """Of an expression such as `1 << 20`."""
    value = eval(text.strip("`"), {"__builtins__": {}})
    return f"{value:,}"


def fields(owner: ast.ClassDef, limits: dict[str, ast.expr], strict: bool = True) -> Iterator[Field]:
    """With *strict* each must be explained."""
    for node, after in zip(owner.body, [*owner.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        if not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)):
            if strict:
                raise SystemExit(f"{owner.name}.{node.target.id} has no docstring")
            yield Field(node.target.id, type_of(node.annotation, limits), default_of(node.value), "")
            continue
        says = re.sub(r"``(.+?)``", r"`\1`", " ".join(str(after.value.value).split())).replace("|", "\\|")
        yield Field(node.target.id, type_of(node.annotation, limits), default_of(node.value), says)


def default_of(value: ast.expr | None) -> str:
    text = ast.unparse(value) if value is not None else ""
    if text in ("None", "''"):
        return "none"
    text = text.replace("(", "[").replace(",)", "]").replace(")", "]") if text.startswith("(") else text
    text = {"True": "true", "False": "false"}.get(text, text).replace("'", '"')
    return f"`{text}`"


def type_of(annotation: ast.expr, limits: dict[str, ast.expr]) -> str:
    """As a person would say it, with its limits."""
    if isinstance(annotation, ast.Name) and annotation.id in limits:
        return type_of(limits[annotation.id], limits)
    text = ast.unparse(annotation)
    if text.startswith("Annotated["):
        assert isinstance(annotation, ast.Subscript)
        assert isinstance(annotation.slice, ast.Tuple)
        kind, meta = annotation.slice.elts
        return type_of(kind, limits) + range_of(meta)
    if text.startswith("tuple["):
        return "list of strings"
    if text.endswith(" | None"):
        return "table"
    words = {"str": "string", "int": "whole number", "float": "number", "bool": "true or false"}
    return words.get(text, text)


def range_of(meta: ast.expr) -> str:
    assert isinstance(meta, ast.Call)
    bounds = {word.arg: ast.unparse(word.value) for word in meta.keywords}
    low, high = bounds.get("ge"), bounds.get("le")
    if low is not None and high is not None and "<<" not in high:
        return f", {low} to {high}".replace("_", "")
    return f", at least {low}" if low is not None else ""
