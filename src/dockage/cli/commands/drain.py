"""``dockage drain``: take this machine off the market, with notice to those who rent it."""

from __future__ import annotations

import time

import click

from dockage.cli import format as show
from dockage.cli.client import Json
from dockage.cli.leases import end
from dockage.cli.options import NOTICE, Command, json_option
from dockage.cli.session import Session
from dockage.cli.table import table

LOOK_SEC = 1.0


@click.command(
    cls=Command,
    examples=(
        "dockage drain                                # the leases end in an hour, nothing new is sold",
        "dockage drain --notice 2d --reason 'the machine moves house'",
        "dockage drain --notice 10m --wait            # returns once the machine is empty",
        "dockage drain --cancel                       # sell on",
    ),
)
@click.option(
    "--notice", type=NOTICE, default="1h", show_default=True, metavar="TIME", help="Until the leases end."
)
@click.option("--reason", default="", help="What the tenants are told.")
@click.option("--wait", is_flag=True, help="Return once every lease has ended.")
@click.option("--cancel", is_flag=True, help="Call it off: the tenants are told, and new leases are sold.")
@json_option
@click.pass_obj
def command(session: Session, /, notice: int, reason: str, wait: bool, cancel: bool) -> None:
    """Sell nothing new, and end all leases with notice.

    Each tenant is told when and why its lease will end, so that it can move. A drain outlives a restart of the
    daemon until its time; who starts the provider after that sells again.
    """
    if cancel:
        answer = session.client.post("drain", "cancel")
    else:
        answer = session.client.post("drain", body={"notice_sec": notice, "reason": reason})
    while wait and not cancel and answer["leases"]:
        session.say(f"{show.plural(len(answer['leases']), 'lease')} left")
        time.sleep(LOOK_SEC)
        answer["leases"] = [x for x in session.client.get("earnings")["leases"] if x["state"] != "ended"]
    session.show(answer, summary(answer))


def summary(answer: Json) -> str:
    if answer["ending"] is None:
        return "on the market"
    rows = [(show.short(x["lease"]), show.short(x["tenant"]), x["state"]) for x in answer["leases"]]
    listing = table(("LEASE", "TENANT", "STATE"), rows) if rows else "no lease is left"
    return f"nothing new is sold; what runs {end(answer['ending'])}\n\n{listing}"
