"""``dockage spend``: what runs for us, what it uses, and what it costs."""

from __future__ import annotations

from typing import Any

import click

from dockage.cli import accounts, leases
from dockage.cli import format as show
from dockage.cli import watch as watching
from dockage.cli.client import Json
from dockage.cli.options import Command, json_option, watch_option
from dockage.cli.session import Session


@click.command(
    cls=Command,
    examples=(
        "dockage spend",
        "dockage spend --watch",
        "dockage spend --since 7d --step day             # what each day cost",
        "dockage spend --csv > spend.csv                 # each lease and hour, all there are",
        "dockage spend --plot --since 2h",
    ),
)
@click.option("-a", "--all", "everything", is_flag=True, help="Leases that have ended, too.")
@accounts.history_options
@watch_option
@json_option
@click.pass_obj
def command(session: Session, /, everything: bool, watch: bool, **history: Any) -> None:
    """Show what runs, what it uses, and what it costs.

    With --since, --step, --csv or --plot: what was spent over time, ended leases too. The rows add up to the bills.

    AT MOST is the worst case: every limit used to the full, network aside. DUE is the bill so far, signed by the
    provider and checked by us; what is paid follows it second by second.
    """
    if past := accounts.period(session, **history):
        accounts.present(session, past, "spend", "provider")
        return
    rates = leases.RateNow()

    def ask() -> Json:
        answer = session.client.get("spend")
        if not everything:
            answer["leases"] = [x for x in answer["leases"] if x["state"] != "ended"]
        return answer

    def draw(answer: Json) -> str:
        return summary(answer, rates.look(answer["leases"]) if watch else None)

    watching.show(session, ask, draw, watch=watch)


def summary(answer: Json, rates: leases.Rates | None = None) -> str:
    shown = answer["leases"]
    parts = [leases.listing(shown, rates)] if shown else []
    parts += ["\n".join(leases.reasons(shown))]
    parts.append(
        f"{show.plural(answer['running'], 'lease')} running, at most {show.sat(answer['msat_hour_max'])} an hour; "
        f"due so far {show.sat(answer['due_msat'])}, paid {show.whole_sat(answer['paid_sat'])}"
    )
    return "\n\n".join(part for part in parts if part)
