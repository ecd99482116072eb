"""How a close goes on once it was asked for: wait for its signatures, and say in a sentence where each channel stands.

The one rule: waiting changes nothing. Whoever stops it, by Ctrl-C or by the limit, has not stopped the close.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum

from dockage.cli import format as show
from dockage.cli.client import Json
from dockage.cli.leases import why
from dockage.cli.session import Session

POLL_SEC = 0.5
WAIT_SEC = 30
"""The provider waits a few seconds for the tenant's half, then closes alone; both look at the chain every few."""


class Outcome(StrEnum):
    SETTLED = "settled"
    """In a block."""
    BOTH = "signed-by-both"
    ALONE = "signed-by-provider"
    UNFUNDED = "never-funded"
    WAITING = "waiting"


def outcome(channel: Json) -> Outcome:
    """Of one row of ``GET /v1/channels``."""
    if channel["state"] == "abandoned":
        return Outcome.UNFUNDED
    if channel["settled"]:
        return Outcome.SETTLED
    if channel["signed_by_both"]:
        return Outcome.BOTH
    return Outcome.ALONE if channel["closing_txid"] else Outcome.WAITING


def wait(
    session: Session, asked: list[Json], seconds: float, now: Callable[[], float] = time.monotonic
) -> list[Json]:
    """The channels' rows, once no close of them waits for a signature any more, or after *seconds*."""
    until, said = now() + seconds, 0
    try:
        while True:
            rows = _rows(session, asked)
            waiting = sum(outcome(row) is Outcome.WAITING for row in rows)
            left = until - now()
            if not waiting or left <= 0:
                return rows
            if waiting != said:
                closes = show.plural(waiting, "close")
                session.say(f"waiting for the signatures of {closes} (Ctrl-C ends the waiting only)")
                said = waiting
            time.sleep(min(POLL_SEC, left))
    except KeyboardInterrupt:
        session.say("the close goes on without this command; `dockage channels` shows how far it is")
        raise


def _rows(session: Session, asked: list[Json]) -> list[Json]:
    wanted = {(one["channel"], one["role"]) for one in asked}
    return [
        row for row in session.client.get("channels")["channels"] if (row["channel"], row["role"]) in wanted
    ]


def sentence(channel: Json) -> str:
    name = f"{show.short(channel['channel'])} ({channel['role']})"
    txid, earns = channel["closing_txid"], channel["role"] == "earning"
    match outcome(channel):
        case Outcome.SETTLED:
            return f"{name}: closed by {txid}"
        case Outcome.BOTH:
            return f"{name}: signed by both, on its way to the chain as {txid}"
        case Outcome.ALONE:
            whose = "signed by us alone" if earns else "signed by the provider alone"
            return f"{name}: {whose}, on its way to the chain as {txid}"
        case Outcome.UNFUNDED:
            return f"{name}: it was never funded, there is nothing to close"
        case Outcome.WAITING if earns:
            because = f" ({why(channel['reason'])})" if channel["reason"] else ""
            return f"{name}: not signed yet{because}; it is asked for again at each block"
        case Outcome.WAITING:
            return (
                f"{name}: the provider has not answered yet; it is asked again at each look at the chain, and in "
                f"{show.plural(max(0, channel['expiry_blocks']), 'block')} all of it comes back without the provider"
            )
