"""What is public of our deployments, for ``up`` and ``ps``."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from . import format as show
from .client import Json
from .leases import why
from .session import Session
from .table import table

POLL = 0.5
UNPROVEN = "site.unproven"
HEAD = ("DEPLOYMENT", "GATEWAY", "LEASE", "STATE", "IN FLIGHT", "REQUESTS", "URL")


def listing(deployments: Iterable[Json]) -> str:
    """A line a gateway, and under them what hinders it."""
    found = list(deployments)
    rows = [_row(of, x) for of in found for x in of["gateways"]]
    notes = [
        f"{show.short(x['lease'])}: {why(x['reason'])}" for of in found for x in of["gateways"] if x["reason"]
    ]
    notes += [f"{of['deployment']}: {why(of['hindrance'])}" for of in found if of["hindrance"]]
    notes += [f"{of['deployment']}: looking for a gateway" for of in found if of["looking"]]
    return "\n".join([*([table(HEAD, rows, right=("IN FLIGHT", "REQUESTS"))] if rows else []), *notes])


def _row(of: Json, x: Json) -> tuple[str, ...]:
    return (
        of["deployment"],
        show.short(x["gateway"]),
        show.short(x["lease"]),
        "open" if x["open"] else "closed",
        str(x["in_flight"]),
        str(x["requests"]),
        " ".join(url["url"] for url in x["urls"]),
    )


def one(session: Session, name: str) -> Json:
    found: list[Json] = session.client.get("public")["deployments"]
    return next((x for x in found if x["deployment"] == name), NOTHING)


NOTHING: Json = {"urls": [], "gateways": [], "looking": False, "hindrance": None}


def settle(session: Session, name: str, services: Collection[str], seconds: float) -> Json:
    """Wait until each of *services* has a URL that is open, or something hinders it."""
    until, of = time.monotonic() + seconds, one(session, name)
    if not _is_settled(of, services):
        session.say("waiting for a gateway")
    while not _is_settled(of, services) and time.monotonic() < until:
        time.sleep(POLL)
        of = one(session, name)
    return of


def refusals(of: Json) -> list[str]:
    """Why gateways that are rented do not serve it, or not all of it."""
    return [_refusal(x) for x in of["gateways"] if x["reason"]]


def _refusal(x: Json) -> str:
    public = "not all of it is public" if x["open"] else "not public"
    return f"{public} at gateway {show.short(x['gateway'])} yet: {why(x['reason'])}"


def _is_settled(of: Json, services: Collection[str]) -> bool:
    """A record in the DNS is our user's to set: it is not waited for."""
    there = {url["service"] for url in of["urls"]}
    ours = any(x["reason"] and x["reason"]["code"] == UNPROVEN for x in of["gateways"])
    return there >= set(services) or ours or bool(of["hindrance"] and not of["looking"])
