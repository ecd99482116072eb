"""``dockage deputy``: another machine of yours carries on with a deployment while this one is away."""

from __future__ import annotations

from collections.abc import Sequence

import click

from dockage.cli import complete
from dockage.cli import format as show
from dockage.cli.client import Json
from dockage.cli.leases import why
from dockage.cli.options import Group, json_option, yes_option
from dockage.cli.session import Session
from dockage.cli.table import table
from dockage.cli.telling import telling

LEAVE_SEC = 4 * 3600.0
"""Images may be large and lines slow."""


@click.group(
    cls=Group,
    invoke_without_command=True,
    subcommand_metavar="[add | list | remove]",
    examples=(
        "dockage deputy add shop desk                    # desk is linked with this machine",
        "dockage deputy add shop desk --budget 5000      # and may spend so much, in all",
        "dockage deputy list",
        "dockage deputy remove shop",
    ),
)
@json_option
@click.pass_context
def command(ctx: click.Context) -> None:
    """Let another machine of yours carry on while this one is away.

    The deputy is a linked machine that is always on. About 30 s after this one was heard of last it rents anew, under
    its own key and from its own wallet, and goes on until this one is back. Never both: each acts only while the other
    does not.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@command.command(
    examples=(
        "dockage deputy add shop desk",
        "dockage deputy add shop desk --budget 5000 --max-spend 20",
        "dockage deputy add shop 6f1c2a --days 30 --json",
    )
)
@click.argument("name", shell_complete=complete.of(complete.deployments))
@click.argument("machine", shell_complete=complete.of(complete.machines))
@click.option(
    "--budget",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="SAT",
    help="What its leases may cost in all; 0: only what is free. The deputy's tenant.deputy_sat bounds it.",
)
@click.option("--max-spend", type=click.IntRange(0), metavar="SAT", help="An hour, at worst.")
@click.option(
    "--days",
    type=click.IntRange(1, 30),
    default=7,
    show_default=True,
    help="How long it goes on without hearing of this machine.",
)
@json_option
@click.pass_obj
def add(session: Session, /, name: str, machine: str, budget: int, max_spend: int | None, days: int) -> None:
    """Make the linked MACHINE the deputy of the deployment NAME, or change what it may spend.

    The images are left there, so the first time may take a while; a break is made up for by the same command again.
    Named volumes stay behind, so a deployment that has some needs the label dockage.data=expendable.
    """
    body = {
        "deployment": name,
        "machine": machine,
        "budget_sat": budget,
        "max_spend_sat": max_spend,
        "days": days,
    }
    with telling(session, name):
        mine = session.client.post("deputies", body=body, timeout=LEAVE_SEC)
    session.show(mine, f"{mine['machine']} carries on with {name} while this machine is away")


@command.command("list", examples=("dockage deputy list", "dockage deputy list --json"))
@json_option
@click.pass_obj
def list_(session: Session) -> None:
    """Show who is the deputy of what: of yours, and this machine of others'."""
    answer = session.client.get("deputies")
    session.show(answer, listing(answer["mine"], answer["charges"]))


def listing(mine: Sequence[Json], charges: Sequence[Json]) -> str:
    parts = list[str]()
    if mine:
        parts.append(table(("DEPLOYMENT", "DEPUTY", "BUDGET", "GOOD FOR", "STATE"), [_mine(x) for x in mine]))
        parts += [f"{x['deployment']}: {why(x['trouble'])}" for x in mine if x["trouble"]]
    if charges:
        head = ("DEPUTY OF", "DEPLOYMENT", "SPENT", "GOOD FOR", "STATE")
        parts.append(table(head, [_charge(x) for x in charges]))
    return "\n".join(parts) or "no deployment has a deputy, and this machine is nobody's"


def _mine(x: Json) -> tuple[str, ...]:
    return (
        x["deployment"],
        _who(x, "deputy"),
        f"{x['budget_sat']} sat",
        show.duration(x["left_sec"]),
        _state(x),
    )


def _state(x: Json) -> str:
    if x["ours"]:
        return "ours; the deputy's copies still run" if x["deputy_runs"] else "ours"
    return "the deputy's" if x["deputy_runs"] else "unknown: the deputy does not answer"


def _charge(x: Json) -> tuple[str, ...]:
    spent = f"{show.sat(x['spent_msat'])} of {x['budget_sat']} sat"
    return (_who(x, "tenant"), x["deployment"], spent, show.duration(x["left_sec"]), _doing(x))


def _doing(x: Json) -> str:
    if x["spent_out"]:
        return "ended: the budget is spent"
    if x["acts"]:
        return f"runs here as {x['called']}, {show.plural(x['replicas'], 'replica')}"
    return "waits until its tenant's copies serve" if x["runs"] else "stands by"


def _who(x: Json, key: str) -> str:
    return f"{x['machine'] or '?'} ({show.short(x[key])})"


@command.command(examples=("dockage deputy remove shop", "dockage deputy remove shop --force"))
@click.argument("name", shell_complete=complete.of(complete.deployments))
@click.option("--force", is_flag=True, help="Also if it does not answer: you know that it does not run.")
@yes_option
@json_option
@click.pass_obj
def remove(session: Session, /, name: str, force: bool, yes: bool) -> None:
    """Take the deputy of the deployment NAME away; what it runs of it ends."""
    session.confirm(f"Remove the deputy of {name}?", yes=yes)
    gone = session.client.post("deputies", name, "remove", body={"force": force})
    session.show(gone, f"{name} has no deputy any more")
