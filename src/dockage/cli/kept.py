"""What the controller keeps, for ``ps``, ``scale``, ``move`` and ``why``."""

from __future__ import annotations

import time
from collections.abc import Iterable

from . import format as show
from .client import Json
from .leases import why
from .session import Session
from .table import table

POLL = 0.5
HEAD = ("DEPLOYMENT", "REPLICA", "PROVIDER", "REGION", "STATE", "HEALTH", "SINCE", "AT MOST")


def listing(deployments: Iterable[Json]) -> str:
    """A line a replica, and under them what hinders it. A star: what ids and ports lead to."""
    found = list(deployments)
    rows = [_row(of, x) for of in found for x in of["replicas"]]
    notes = [
        f"{show.short(x['lease'])}: {why(x['reason'])}" for of in found for x in of["replicas"] if x["reason"]
    ]
    notes += [f"{of['deployment']}: {why(of['hindrance'])}" for of in found if of["hindrance"]]
    notes += [f"{of['deployment']}: looking for another provider" for of in found if of["looking"]]
    return "\n".join([table(HEAD, rows, right=("SINCE", "AT MOST")), *notes])


def _row(of: Json, x: Json) -> tuple[str, ...]:
    return (
        of["deployment"],
        show.short(x["lease"]) + ("*" if x["primary"] else ""),
        show.short(x["provider"]),
        x["region"],
        x["state"],
        x["health"],
        show.duration(x["since_sec"]),
        show.hourly(x["msat_hour_max"]),
    )


def story(of: Json) -> str:
    """What was done, oldest first."""
    return "\n".join(_chapter(x) for x in of["story"]) or "nothing had to be done so far"


def _chapter(x: Json) -> str:
    other = f" by {show.short(x['other'])}" if x["other"] else ""
    return f"{show.duration(x['ago_sec'])} ago: {show.short(x['lease'])} {x['what']}{other}: {why(x)}"


def serving(of: Json) -> int:
    return sum(x["state"] == "serving" and x["health"] != "leaving" for x in of["replicas"])


def settle(session: Session, of: Json, seconds: float) -> Json:
    """Wait until as many serve as are wanted and nothing is on its way, or something hinders it."""
    until, name = time.monotonic() + seconds, of["deployment"]
    while time.monotonic() < until and not _is_settled(of) and not of["hindrance"]:
        time.sleep(POLL)
        of = next(
            (x for x in session.client.get("deployments")["deployments"] if x["deployment"] == name), of
        )
    return of


def _is_settled(of: Json) -> bool:
    busy = [x for x in of["replicas"] if x["state"] not in ("serving", "standby", "lost") or x["reason"]]
    return serving(of) == of["wanted"] and not busy and not of["looking"]
