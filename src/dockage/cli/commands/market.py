"""``dockage market``: everybody's offers, priced for the size asked about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        "dockage market --histogram --limit 5000    # what a deployment of this size costs, over all offers",
        "dockage market --watch --fits --sort age",
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
@click.option("--fits", is_flag=True, help="Only offers that fit.")
@click.option(
    "--limit",
    type=click.IntRange(1, 20_000),
    default=200,
    show_default=True,
    help="How many offers to ask for.",
)
@click.option(
    "--per-network",
    type=click.IntRange(0, 256),
    default=0,
    metavar="N",
    help="At most N of one /24, /48 or relay: likely one operator. 0: all.",
)
@click.option(
    "--histogram",
    is_flag=True,
    help="How many offers at which price, instead of the offers; with --json both.",
)
@watch_option
@json_option
@click.pass_obj
def command(
    session: Session,
    /,
    provider: str,
    sort: str,
    fits: bool,
    limit: int,
    per_network: int,
    histogram: bool,
    watch: bool,
    **size: Any,
) -> None:
    """List offers, priced for a deployment of the size given: one standard container, if none is.

    The price is the worst case: every limit used to the full, network aside. You pay for what is used. RISK is what
    your own node has seen of a provider; the order is by price times (1 + risk).
    """
    wanted = {**need(**size), "limit": limit, "per_network": per_network}

    def ask() -> Json:
        answer = session.client.post("market", body=wanted)
        found = [offer for offer in answer["offers"] if offer["provider"].startswith(provider.lower())]
        answer["offers"] = sorted((x for x in found if not (fits and x["obstacles"])), key=SORTS[sort])
        answer["histogram"] = buckets([x["msat_hour_max"] for x in answer["offers"]])
        return answer

    watching.show(session, ask, bars if histogram else draw, watch=watch)


def buckets(prices: Sequence[int], most: int = 10) -> list[Json]:
    """Equal steps of whole sat an hour over what the middle 98 % ask: a single absurd price must not flatten the
    rest. What lies beyond is in the last one."""
    if not prices:
        return []
    ordered = sorted(prices)
    low, high = ordered[0] // 1000, ordered[(len(ordered) * 99 - 1) // 100] // 1000 + 1
    step = max(1, -(-(high - low) // most))
    found: list[Json] = []
    for start in range(low, high, step):
        is_last = start + step >= high
        count = sum(start * 1000 <= x and (is_last or x < (start + step) * 1000) for x in ordered)
        found.append({"from_sat_hour": start, "to_sat_hour": start + step, "offers": count})
    return found


def bars(answer: Json) -> str:
    """The same, to look at."""
    if not answer["histogram"]:
        return str(answer["why"]) or "no such offer"
    tallest = max(row["offers"] for row in answer["histogram"])
    rows = [
        (
            f"{row['from_sat_hour']} - {row['to_sat_hour']}",
            str(row["offers"]),
            "#" * -(-row["offers"] * 40 // tallest),
        )
        for row in answer["histogram"]
    ]
    count = sum(row["offers"] for row in answer["histogram"])
    return f"{table(('SAT/H AT MOST', 'OFFERS', ''), rows, right=('OFFERS',))}\n\n{_seen(answer, count)}"


def _seen(answer: Json, shown: int) -> str:
    by = f", says {show.plural(len(answer['indexes']), 'index', 'indexes')}" if answer["indexes"] else ""
    return f"{shown} shown of {show.plural(answer['known'], 'offer')}, {answer['fitting']} of which fit{by}"


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
    return f"{listing}\n\n{answer['why'] or _seen(answer, len(answer['offers']))}"


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
