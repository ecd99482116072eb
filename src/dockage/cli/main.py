"""The entry point ``dockage``: finds the command, loads only that one, and ends with its exit code."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from dockage import __version__
from dockage.domain.errors import DockageError, UsageError

from .errors import discard_output, guarded
from .options import write_examples
from .session import Session

COMMANDS = (
    "up",
    "down",
    "ps",
    "scale",
    "move",
    "deputy",
    "market",
    "top",
    "spend",
    "why",
    "provide",
    "drain",
    "gateway",
    "earnings",
    "link",
    "verify-proof",
    "wallet",
    "channels",
    "daemon",
    "service",
    "status",
    "id",
    "context",
    "completion",
)
"""In the order of ``--help``. Each is a module of ``commands`` with an attribute ``command``."""
EXAMPLES = (
    "dockage provide --price-preset fair     # sell this machine",
    "dockage market                          # who sells what, at which price",
    "dockage up                              # run compose.yaml there",
    "dockage top                             # what runs, and what it costs",
)


@contextmanager
def _enough_seen() -> Iterator[None]:
    """``dockage market | head``: to click that would be a failure."""
    try:
        yield
    except BrokenPipeError:
        discard_output()
        raise click.exceptions.Exit(0) from None


def _refuse_older_daemon(session: Session) -> None:
    """What we did not understand may be the answer of the program from before an upgrade."""
    try:
        runs = session.client.get("status", timeout=5.0).get("version", "")
    except DockageError:
        return
    if runs != __version__:
        raise UsageError(
            "daemon.other-version",
            f"the daemon is dockage {runs}, this program is {__version__}: start it anew (`dockage service install` or "
            "`dockage daemon --stop` and as before). Its leases outlive that",
        )


class Dockage(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"dockage.cli.commands.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, EXAMPLES)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _enough_seen():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _enough_seen():
                return super().invoke(ctx)
        except (KeyError, TypeError, ValueError):
            _refuse_older_daemon(ctx.obj)
            raise

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> Any:
        """Always exits: errors become lines and codes (``errors.py``)."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a bar or a QR code where the locale knows ASCII only
        words = list(sys.argv[1:] if args is None else args)
        extra = {**extra, "prog_name": "dockage", "standalone_mode": False}
        sys.exit(guarded(lambda: super(Dockage, self).main(words, **extra), as_json="--json" in words))


@click.group(cls=Dockage, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--home",
    envvar="DOCKAGE_HOME",
    show_envvar=True,
    type=click.Path(file_okay=False, path_type=Path),
    default="~/.dockage",
    show_default=True,
    help="The folder of the node; one daemon each.",
)
@click.version_option(__version__, message="dockage %(version)s")
@click.pass_context
def main(ctx: click.Context, home: Path) -> None:
    """A peer-to-peer cloud for containers, paid by the second.

    Exit codes: 0 done, 1 you can mend it, 2 wrong usage, 3 no daemon runs, 4 something does not answer now, 70 a bug.
    """
    ctx.obj = Session(home.expanduser().absolute())


if __name__ == "__main__":
    main()
