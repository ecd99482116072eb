"""``dockage market``: everybody's offers, priced for the size asked about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from dockage.cli import complete
from dockage.cli import format as show
from dockage.cli import watch as watching
from dockage.cli.client import Json
from dockage.cli.options import Command, json_option, need, need_options, watch_option
from dockage.cli.session import Session
from dockage.cli.table import table

SORTS: dict[str, Callable[[Json], Any]] = {
    "price": lambda offer: (
        bool(offer["obstacles"]),
        offer["msat_hour_max"] * (1000 + offer["risk_permille"]),
        offer["provider"],
    ),
    "region": lambda offer: (offer["region"], offer["msat_hour_max"], offer["provider"]),
    "cpus": lambda offer: (-offer["free"]["cpu_milli"], offer["provider"]),
    "memory": lambda offer: (-offer["free"]["memory_bytes"], offer["provider"]),
    "age": lambda offer: (offer["age_sec"], offer["provider"]),
}


@click.command(
    cls=Command,
    examples=(
        "dockage market",
        "dockage market --cpus 0.25 --memory 256M --region eu --max-price 5",
        "dockage market --json | jq '.offers[0].provider'",
    ),
)
@need_options
@click.option(
    "--provider",
    default="",
    metavar="KEY",
    shell_complete=complete.of(complete.providers),
    help="Only the offer of the provider whose key begins so.",
)
@click.option(
    "--sort", type=click.Choice(list(SORTS)), default="price", show_default=True, help="What comes first."
)
@watch_option
@json_option
@click.pass_obj
def command(session: Session, /, provider: str, sort: str, watch: bool, **size: Any) -> None:
    """List all offers, priced for a deployment of the size given.

    The price is the worst case: every limit used to the full, network aside. You pay for what is used. RISK is what
    your own node has seen of a provider; the order is by price times (1 + risk).
    """
    wanted = need(**size)

    def ask() -> Json:
        answer = session.client.post("market", body=wanted)
        found = [offer for offer in answer["offers"] if offer["provider"].startswith(provider.lower())]
        answer["offers"] = sorted(found, key=SORTS[sort])
        return answer

    watching.show(session, ask, draw, watch=watch)


def draw(answer: Json) -> str:
    if not answer["offers"]:
        return str(answer["why"]) or "no such offer"
    head = (
        "PROVIDER",
        "REGION",
        "ARCH",
        "FREE CORES",
        "MEMORY",
        "DISK",
        "AT MOST",
        "A MONTH",
        "RISK",
        "FITS",
    )
    listing = table(
        head, map(_row, answer["offers"]), right=("FREE CORES", "MEMORY", "DISK", "AT MOST", "A MONTH")
    )
    return f"{listing}\n\n{answer['why']}" if answer["why"] else listing


def _risk(offer: Json) -> str:
    """What this node has seen of the provider makes it seem so much dearer."""
    seen, percent = offer["evidence"], offer["risk_permille"] // 10
    if seen["breaches"]:
        return f"+{percent}% {seen['breaches'][-1]['code']}"
    return f"+{percent}%" if seen["statements_agreed"] else f"+{percent}% new"


def _row(offer: Json) -> tuple[str, ...]:
    free, price = offer["free"], offer["msat_hour_max"]
    return (
        show.short(offer["provider"]),
        offer["region"],
        offer["architecture"],
        show.cores(free["cpu_milli"]),
        show.size(free["memory_bytes"]),
        show.size(free["disk_bytes"]),
        show.hourly(price),
        show.monthly(price),
        _risk(offer),
        "; ".join(offer["obstacles"]) or "yes",
    )
