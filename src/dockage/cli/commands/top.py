"""``dockage top``: what runs, rented and sold, what it uses and what it costs, as it happens."""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import click

from dockage.cli import screen
from dockage.cli.client import Json
from dockage.cli.containers import Containers
from dockage.cli.errors import UsageError
from dockage.cli.options import Command, json_option
from dockage.cli.session import Session
from dockage.cli.top import SORTS, Look, Watcher, ordered
from dockage.domain.errors import DockageError

EVERY_SEC = 1.0
"""Statements come once a second."""
FIRST_SEC = 1.2
"""Between the two looks that a pace needs."""
BY_NAME = {word: key for key, (word, _) in SORTS.items()}


@click.command(
    cls=Command,
    examples=(
        "dockage top",
        "dockage top --sort cpu",
        "dockage top --once",
        "dockage top --json | jq '.leases[].msat_hour'      # a line each second",
    ),
)
@click.option("--once", is_flag=True, help="Show it once; so does a pipe.")
@click.option(
    "--sort", type=click.Choice(list(BY_NAME)), default="price", show_default=True, help="What comes first."
)
@json_option
@click.pass_obj
def command(session: Session, once: bool, sort: str) -> None:
    """Watch leases and containers: use, limits, price now, bill, and what is paid of it.

    Rented leases with their containers, and sold ones. Keys: q quits, h shows the others. With --json a line a second.
    """
    source = Source(session)
    if session.json and not once:
        _stream(source)
    elif not once and sys.stdout.isatty() and sys.stdin.isatty():
        _live(source, screen.View(sort=BY_NAME[sort]))
    else:
        look = source.twice()
        rows = ordered(look, BY_NAME[sort])
        lines, _ = screen.table(rows)
        text = "\n".join([*(lines if rows else ["nothing runs"]), "", *screen.summary(look)])
        session.show(look.value(_now_ms()), text)


class Source:
    """Asks the node, and in the background its containers."""

    def __init__(self, session: Session) -> None:
        self._session, self._watcher = session, Watcher()
        tenant = session.client.get("status")["tenant"]
        self._containers = Containers(tenant["socket"]) if tenant else None

    def start(self) -> None:
        if self._containers is not None:
            self._containers.start()

    def look(self) -> Look:
        """Raises NotRunning or Unavailable."""
        client = self._session.client
        uses = self._containers.seen if self._containers is not None else ()
        return self._watcher.look(
            client.get("spend"), self._earnings(), client.get("channels")["channels"], uses
        )

    def _earnings(self) -> Json | None:
        try:
            return self._session.client.get("earnings")
        except UsageError:
            return None  # it sells nothing

    def twice(self) -> Look:
        """What a single picture needs: the pace is the difference of two."""
        with ThreadPoolExecutor() as pool:
            self._look_with(pool)
            time.sleep(FIRST_SEC)
            return self._look_with(pool)

    def _look_with(self, pool: ThreadPoolExecutor) -> Look:
        if self._containers is not None:
            self._containers.seen = self._containers.look(pool)
        return self.look()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _stream(source: Source) -> None:
    source.start()
    try:
        while True:
            click.echo(json.dumps(source.look().value(_now_ms())))
            sys.stdout.flush()
            time.sleep(EVERY_SEC)
    except KeyboardInterrupt:
        pass


# -- on a terminal -----------------------------------------------------------------------------------
class Newest:
    """Looks again and again beside the keys: a daemon that is slow must not hold them up."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.look, self.trouble = source.look(), ""
        self.over = threading.Event()
        source.start()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not self.over.wait(EVERY_SEC):
            try:
                self.look, self.trouble = self._source.look(), ""
            except DockageError as error:
                self.trouble = f"as of before: {error.message} ({error.code})"


def _live(source: Source, view: screen.View) -> None:
    from dockage.cli.terminal import Terminal, taken

    newest = Newest(source)

    def show(terminal: Terminal, view: screen.View) -> None:
        shown: screen.View | None = view
        while shown is not None:
            width, height = terminal.size()
            frame = screen.frame(newest.look, shown, width, height, newest.trouble)
            terminal.draw(_lit(frame))
            key = terminal.key(EVERY_SEC / 2)
            shown = screen.pressed(frame.view, key, max(1, height - 4)) if key else frame.view

    try:
        with taken() as terminal:
            show(terminal, view)
    except KeyboardInterrupt:
        pass  # the usual way to leave
    finally:
        newest.over.set()


def _lit(frame: screen.Frame) -> list[str]:
    """The head of the table in reverse, all the way."""
    lines = list(frame.lines)
    if 0 <= frame.head < len(lines):
        lines[frame.head] = f"\x1b[7m{lines[frame.head]}\x1b[K"
    return lines
