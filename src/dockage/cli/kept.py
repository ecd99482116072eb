"""What the controller keeps, for ``ps``, ``scale``, ``move`` and ``why``."""

from __future__ import annotations

import time
from collections.abc import Iterable

from . import format as show
from .client import Json
from .errors import UsageError
from .leases import why
from .session import Session
from .table import table

POLL = 0.5
HEAD = ("DEPLOYMENT", "REPLICA", "PROVIDER", "REGION", "STATE", "HEALTH", "SINCE", "AT MOST")


ROLLOUTS = {
    "waiting for a copy": "what changed is rolled out: a copy is being set up",
    "changing": "what changed is rolled out: docker is at it",
    "proving": "what changed is rolled out: it is not healthy yet, and gets no requests",
    "rolling": "what changed is rolled out: replica by replica",
    "rolling back": "what was before is brought back",
    "paused": "what changed waits beside what was before",
}


def listing(deployments: Iterable[Json]) -> str:
    """A line a replica, and under them what hinders it. A star: what ids and ports lead to."""
    found = list(deployments)
    rows = [_row(of, x) for of in found for x in of["replicas"]]
    notes = [
        f"{show.short(x['lease'])}: {why(x['reason'])}" for of in found for x in of["replicas"] if x["reason"]
    ]
    notes += [f"{of['deployment']}: {why(of['hindrance'])}" for of in found if of["hindrance"]]
    notes += [f"{of['deployment']}: {ROLLOUTS[of['rollout']]}" for of in found if of["rollout"]]
    notes += [f"{of['deployment']}: not rolled out: {why(of['setback'])}" for of in found if of["setback"]]
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


def rolled_out(session: Session, name: str, seconds: float) -> None:
    """Wait for what has changed to have taken over; that begins with its health, so *seconds* are beside the labels'
    own limit. Raises UsageError with the reason for which it was taken back."""
    said, until = "", time.monotonic() + seconds
    while of := _one(session, name):
        if of["setback"] and of["rollout"] in ("", "paused"):
            raise UsageError(of["setback"]["code"], f"{name} was not rolled out: {of['setback']['text']}")
        if not of["rollout"]:
            return
        if of["rollout"] != said:
            said = of["rollout"]
            session.say(ROLLOUTS[said])
        if said != "proving" and time.monotonic() >= until:
            return
        time.sleep(POLL)


def _one(session: Session, name: str) -> Json | None:
    found = session.client.get("deployments")["deployments"]
    return next((x for x in found if x["deployment"] == name), None)


def newest(session: Session, name: str) -> int:
    """When something was done to it last, in ns since 1970; 0: never."""
    of = _one(session, name)
    return max((x["at_ns"] for x in of["story"]), default=0) if of else 0


def check_moved(of: Json, since_ns: int) -> None:
    """Raises UsageError with the reason for which it stayed, or some of it did."""
    fresh = [x for x in of["story"] if x["at_ns"] > since_ns]
    moved = any(x["what"] == "replaced" for x in fresh)
    what = "has moved in part, the rest stays where it is" if moved else "stays where it is"
    for x in fresh:
        if x["what"] == "stayed":
            raise UsageError(x["code"], f"{of['deployment']} {what}: {x['text']}")


def settle(session: Session, of: Json, seconds: float) -> Json:
    """Wait until as many serve as are wanted and nothing is on its way, or something hinders it."""
    until, name = time.monotonic() + seconds, of["deployment"]
    while time.monotonic() < until and not _is_settled(of) and not of["hindrance"]:
        time.sleep(POLL)
        of = _one(session, name) or of
    return of


def _is_settled(of: Json) -> bool:
    busy = [x for x in of["replicas"] if x["state"] not in ("serving", "standby", "lost") or x["reason"]]
    return serving(of) == of["wanted"] and not busy and not of["looking"] and not of["rollout"]
