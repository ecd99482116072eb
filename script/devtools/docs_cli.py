"""Writes docs/reference/cli.md from the commands themselves; with --check only says whether it is current."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from dockage.cli.main import EXAMPLES, main

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "reference" / "cli.md"
INTRODUCTION = """\
# The command line

Made by `script/docs-cli` from the commands themselves; a test keeps it current.

`dockage [--home DIR] COMMAND`. A node's state is one folder, `--home` (or `DOCKAGE_HOME`, by default `~/.dockage`);
every command talks to the daemon of that home over its `control.sock`. Every command has `--help` and `--json`.

Answers go to stdout, everything else to stderr. An error is one line, `error: message (code)`; with `--json` it is
`{"code": ..., "message": ...}`. Codes and exit codes are stable:

| Exit code | Meaning |
|---|---|
| 0 | done |
| 1 | you can mend it; the message says how |
| 2 | the command line is wrong |
| 3 | no daemon runs at this home |
| 4 | something that is needed (engine, market, chain, peer) does not answer now |
| 70 | a fault of dockage's own; its trace is shown: please report it |
| 130 | interrupted by Ctrl-C |

Prices are in satoshis (sat); a month has 30 days. *At most* is the worst case: every limit used to the full all the
time, network aside. You pay for what is used.

Completion of commands, options and the names of leases, channels and providers: see `dockage completion`.
"""


def page() -> str:
    context = click.Context(main, info_name="dockage")
    parts = [INTRODUCTION, shell(EXAMPLES)]
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        parts += sections(command, click.Context(command, parent=context, info_name=name), "##")
    return "\n".join(parts)


def sections(command: click.Command, context: click.Context, level: str) -> Iterator[str]:
    yield f"{level} {context.command_path}\n"
    yield f"{(command.help or '').replace(chr(10) + '    ', chr(10)).strip()}\n"
    usage = command.collect_usage_pieces(context)
    yield f"`{' '.join([context.command_path, *usage])}`\n"
    yield options(command, context)
    yield shell(getattr(command, "examples", ()))
    if isinstance(command, click.Group):
        for name, sub in command.commands.items():
            yield from sections(sub, click.Context(sub, parent=context, info_name=name), level + "#")


def options(command: click.Command, context: click.Context) -> str:
    rows = [param.get_help_record(context) for param in command.params]
    cells = [
        (names.replace("|", "\\|"), what.replace("|", "\\|")) for names, what in filter(None, rows) if what
    ]
    return "\n".join(["| Option | |", "|---|---|", *(f"| `{names}` | {what} |" for names, what in cells), ""])


def shell(examples: tuple[str, ...]) -> str:
    return "\n".join(["```sh", *examples, "```", ""]) if examples else ""


if __name__ == "__main__":
    text = page()
    if sys.argv[1:] == ["--check"]:
        current = PAGE.exists() and PAGE.read_text() == text
        sys.exit(0 if current else "docs/reference/cli.md is not current: run script/docs-cli")
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(text)
