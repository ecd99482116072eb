"""Names for the shell's completion, asked of the daemon. The rule: silent and quick, whatever is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import click

from .client import Client, Json

TIMEOUT = 0.5
Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def deployments(client: Client) -> Iterator[str]:
    for lease in client.get("spend", timeout=TIMEOUT)["leases"]:
        if lease["state"] != "ended":
            yield lease["deployment"]


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


def machines(client: Client) -> Iterator[str]:
    for machine in client.get("machines", timeout=TIMEOUT)["machines"]:
        yield machine["name"]
        yield machine["node"][:8]


def containers(client: Client) -> Iterator[str]:
    """As docker calls them, those that have ended too."""
    from .containers import ask

    tenant = client.get("status", timeout=TIMEOUT)["tenant"]
    for one in ask(tenant["socket"], "/containers/json?all=1", TIMEOUT):
        yield one["Names"][0].removeprefix("/")


def services(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Of the compose files that the line names so far."""
    from . import compose

    names = ("paths", "project_name", "profiles", "env_files")
    given = [ctx.params.get(name) or () for name in names]
    try:
        found = compose.files(given[0], given[1] or None, given[2], given[3]).ask("config", "--services")
    except Exception:
        return []
    return sorted(name for name in found.split() if name.startswith(typed))


def of(*sources: Callable[[Client], Iterator[str]]) -> Completer:
    """A ``shell_complete`` that offers the names of all *sources*."""

    def complete(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
        client, names = Client(_home(ctx)), set[str]()
        for source in sources:
            with suppress(Exception):  # a shell has no place for an error in the middle of a line
                names |= set(source(client))
        return sorted(name for name in names if name and name.startswith(typed))

    return complete


def _home(ctx: click.Context) -> Path:
    given = ctx.find_root().params.get("home") or os.environ.get("DOCKAGE_HOME")
    return Path(given).expanduser() if given else Path.home() / ".dockage"
