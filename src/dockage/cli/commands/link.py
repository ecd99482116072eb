"""``dockage link``: another machine of yours and this one come to know each other, by a code carried between them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress

import click

from dockage.cli import complete
from dockage.cli import format as show
from dockage.cli.client import Json
from dockage.cli.errors import UsageError
from dockage.cli.options import Group, json_option, yes_option
from dockage.cli.session import Session
from dockage.cli.table import table
from dockage.domain.errors import DockageError

POLL_SEC = 0.5
ACCEPT_SEC = 60.0
"""Ten seconds to hear of the other machine, as many to dial it, twenty to talk, and some more."""


class Link(Group):
    """``dockage link 742-lusab-gutih``: what is no subcommand is a code, or meant to be one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None:
            return super().resolve_command(ctx, ["accept", *args])
        return super().resolve_command(ctx, args)


@click.group(
    cls=Link,
    invoke_without_command=True,
    subcommand_metavar="[CODE | list | remove]",
    examples=(
        "dockage link                    # here: shows a code",
        "dockage link 742-lusab-gutih    # on the other machine",
        "dockage link list",
        "dockage link remove laptop",
    ),
)
@click.option("--qr/--no-qr", default=None, help="Draw the long code for a camera; by default in a terminal.")
@json_option
@click.pass_context
def command(ctx: click.Context, qr: bool | None) -> None:
    """Link two machines of your own.

    A linked machine may rent this one and never pays, and finds its offer without any market. Shows a code; type it on
    the other machine within ten minutes. It is good for one try: a wrong one ends it.
    """
    session = ctx.find_object(Session)
    if ctx.invoked_subcommand is None and session is not None:
        _show_code(session, qr if qr is not None else sys.stdout.isatty() and not session.json)


def _show_code(session: Session, qr: bool) -> None:
    shown = session.client.post("link", "show")
    try:
        session.show(shown, _code(shown))
        if qr and not session.json:
            _draw(shown["long_code"])
        sys.stdout.flush()
        _wait(session, shown["code"])
    finally:
        with suppress(DockageError):  # Ctrl-C: nobody is to find a code that nobody shows any more
            session.client.post("link", "cancel", timeout=5.0)


def _code(shown: Json) -> str:
    anywhere = f"  dockage link {shown['long_code']}"
    if not shown["on_lan"]:
        return f"On the other machine, within ten minutes:\n\n{anywhere}\n"
    return (
        f"On the other machine, within ten minutes, if it is on the same network:\n\n  dockage link {shown['code']}\n\n"
        f"or, from wherever it reaches this address:\n\n{anywhere}\n"
    )


def _draw(code: str) -> None:
    import segno

    segno.make(code, error="l", micro=False).terminal(sys.stdout, compact=True)


def _wait(session: Session, code: str) -> None:
    while True:
        shown = session.client.get("link")
        if shown["code"] != code:
            raise UsageError("link.replaced", "another `dockage link` here has shown a newer code")
        if shown["state"] == "closed":
            raise UsageError(shown["reason"]["code"], shown["reason"]["text"])
        if shown["state"] == "linked":
            session.show(shown["machine"], linked(shown["machine"]))
            return
        time.sleep(POLL_SEC)


def linked(machine: Json) -> str:
    return (
        f"linked with {machine['name']} ({show.short(machine['node'])}). Each may rent the other for nothing: "
        "`dockage provide --only-for own` sells to your own machines alone"
    )


@command.command(hidden=True, examples=("dockage link 742-lusab-gutih",))
@click.argument("code")
@json_option
@click.pass_obj
def accept(session: Session, code: str) -> None:
    """Link with the machine that shows this code."""
    session.say("looking for the other machine")
    machine = session.client.post("link", "accept", body={"code": code}, timeout=ACCEPT_SEC)
    session.show(machine, linked(machine))


@command.command("list", examples=("dockage link list", "dockage link list --json"))
@json_option
@click.pass_obj
def list_(session: Session) -> None:
    """Show the machines that are linked with this one."""
    answer = session.client.get("machines")
    session.show(answer, listing(answer["machines"]) if answer["machines"] else "no machine is linked")


def listing(machines: Sequence[Json]) -> str:
    head = ("NAME", "NODE", "ADDRESS", "LINKED", "STATE")
    return table(head, [(*_names(machine), _state(machine)) for machine in machines])


def _names(machine: Json) -> tuple[str, ...]:
    address = next(iter(machine["addresses"]), machine["relay"])
    return (
        machine["name"],
        show.short(machine["node"]),
        address,
        f"{show.duration(machine['linked_sec'])} ago",
    )


def _state(machine: Json) -> str:
    if machine["answered_sec"] is None:
        return "has not answered yet"
    if not machine["linked_there"]:
        return "has removed us: link again, or remove it here too"
    if machine["answered_sec"] > 30:
        return f"silent for {show.duration(machine['answered_sec'])}"
    return "sells to us" if machine["sells"] else "sells nothing now"


@command.command(examples=("dockage link remove laptop", "dockage link remove 6f1c2a"))
@click.argument("machine", shell_complete=complete.of(complete.machines))
@yes_option
@json_option
@click.pass_obj
def remove(session: Session, machine: str, yes: bool) -> None:
    """Take a machine off the list, by its name or the beginning of its key. Do it on the other one as well.

    What runs goes on until it is ended; nothing new is let to it for nothing.
    """
    session.confirm(f"Remove {machine}?", yes=yes)
    gone = session.client.post("machines", machine, "remove")
    session.show(gone, f"{gone['name']} ({show.short(gone['node'])}) is no machine of yours any more")
