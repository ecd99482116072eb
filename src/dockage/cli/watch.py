"""Views that keep showing: redrawn in place on a terminal, one after another into a pipe, a line each as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import click

from .client import Json
from .session import Session

EVERY = 1.0
"""Seconds; statements come once a second."""


def show(session: Session, ask: Callable[[], Json], draw: Callable[[Json], str], *, watch: bool) -> None:
    """Once, or with *watch* until Ctrl-C, which is the way to leave and therefore no error."""
    if not watch:
        value = ask()
        session.show(value, draw(value))
        return
    try:
        if sys.stdout.isatty() and not session.json:
            _redraw(lambda: draw(ask()))
        else:
            _repeat(session, ask, draw)
    except KeyboardInterrupt:
        pass


def _redraw(frame: Callable[[], str]) -> None:
    from rich.live import Live
    from rich.text import Text

    first = Text(frame(), no_wrap=True, overflow="crop")
    with Live(first, auto_refresh=False) as live:  # leaving it shows the cursor again, whatever happened
        while True:
            time.sleep(EVERY)
            live.update(Text(frame(), no_wrap=True, overflow="crop"), refresh=True)


def _repeat(session: Session, ask: Callable[[], Json], draw: Callable[[Json], str]) -> None:
    while True:
        value = ask()
        click.echo(json.dumps(value) if session.json else draw(value) + "\n")
        sys.stdout.flush()
        time.sleep(EVERY)
