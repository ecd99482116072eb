"""Names for the shell's completion, asked of the daemon. The rule: silent and quick, whatever is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from .client import Client, Json

TIMEOUT = 0.5
Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def leases(client: Client) -> Iterator[str]:
    for lease in client.get("spend", timeout=TIMEOUT)["leases"]:
        yield lease["deployment"]
        yield lease["lease"][:8]


def channels(client: Client) -> Iterator[str]:
    for channel in client.get("channels", timeout=TIMEOUT)["channels"]:
        if channel["state"] not in ("closed", "abandoned"):
            yield channel["channel"][:8]


def providers(client: Client) -> Iterator[str]:
    """Those we rent from, or have a channel with: a look through the market would take too long."""
    known: list[Json] = client.get("spend", timeout=TIMEOUT)["leases"]
    yield from (lease["provider"] for lease in known)
    yield from (
        c["peer"] for c in client.get("channels", timeout=TIMEOUT)["channels"] if c["role"] == "paying"
    )


def of(*sources: Callable[[Client], Iterator[str]]) -> Completer:
    """A ``shell_complete`` that offers the names of all *sources*."""

    def complete(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
        client = Client(_home(ctx))
        try:
            names = {name for source in sources for name in source(client)}
        except Exception:  # a shell has no place for an error in the middle of a line
            return []
        return sorted(name for name in names if name and name.startswith(typed))

    return complete


def _home(ctx: click.Context) -> Path:
    given = ctx.find_root().params.get("home") or os.environ.get("DOCKAGE_HOME")
    return Path(given).expanduser() if given else Path.home() / ".dockage"
