"""What is known of one replica, and what follows: is it well, slow, out of sight, dead, cheating or unpaid?

The signs are independent of each other: our own heartbeat, the provider's statements, the gateways' health checks, our
own mind's quarrel with the bill. The one rule: no single sign, and no single miss, ever replaces a replica.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from dockage.domain.identity import NodeKey
from dockage.domain.reason import Reason
from dockage.domain.units import SECOND, Duration, Instant, since

MISSES = 3
"""Checks in a row that a replica must miss before it counts as lost."""
SILENCE = Duration(5 * SECOND // 2)
"""Without a statement: that is a sign of its own. They come once a second."""
FRESH = Duration(5 * SECOND)
"""How long a gateway's word counts."""
CHEATING = ("statement.", "meter.", "lease.disputed", "host.slow")
"""What the tenant's mind says of a provider whose bill or machine is not what it should be begins so."""
UNPAID = ("account.unpaid", "channel.", "wallet.")


class Health(enum.StrEnum):
    WELL = "well"
    SLOW = "slow"
    """One sign is late: out of the rotation, and nothing else."""
    UNSEEN = "unseen"
    """We cannot reach it, but a gateway can: it is our own line."""
    SICK = "sick"
    """Its provider answers, what runs there does not."""
    APART = "apart"
    """Its provider answers us, and no gateway can speak with it: the line between them is cut, be it one way only."""
    DEAD = "dead"
    """Lost, by enough of the signs."""
    CHEATING = "cheating"
    UNPAID = "unpaid"
    """We cannot pay it; another provider could not be paid either."""
    LEAVING = "leaving"
    """Its provider announced the end."""
    OVER = "over"
    """The lease has ended."""


class Verdict(msgspec.Struct, frozen=True):
    health: Health
    reason: Reason | None = None

    @property
    def serves(self) -> bool:
        """Whether requests may be sent to it."""
        return self.health in (Health.WELL, Health.UNSEEN, Health.CHEATING, Health.LEAVING)

    @property
    def is_gone(self) -> bool:
        return self.health in (Health.DEAD, Health.OVER)

    @property
    def is_useless(self) -> bool:
        """It is there, and the public gets nothing from it."""
        return self.health in (Health.SICK, Health.APART)

    @property
    def should_leave(self) -> bool:
        """It works, and is to be replaced before it is stopped."""
        return self.health in (Health.CHEATING, Health.LEAVING)


WELL = Verdict(Health.WELL)


class Seen(msgspec.Struct, frozen=True):
    """One gateway's word: how many checks in a row failed, when it said so, and how much is under way there."""

    missed: int
    at: Instant
    busy: int = 0
    is_reached: bool = True
    """Whether its provider could be spoken with when a check failed."""


class Signs(msgspec.Struct, frozen=True):
    """Never stored: after a restart they are gathered anew, and nobody is condemned by old ones."""

    missed: int = 0
    """Heartbeats in a row that were not answered."""
    heard_at: Instant = Instant(0)
    """The newest statement; 0 = none is expected yet."""
    gateways: Mapping[NodeKey, Seen] = msgspec.field(default_factory=dict)
    crashed: bool = False
    """Something that should run there has ended."""
    well: bool | None = None
    """Whether all its containers are as they should be; None: they only begin, or nobody looked."""
    trouble: Reason | None = None
    """Why the tenant's mind does not pay, or why the provider has frozen the lease."""
    leaving: Reason | None = None
    over: Reason | None = None


NO_SIGNS = Signs()


def judge(signs: Signs, now: Instant) -> Verdict:
    if signs.over is not None:
        return Verdict(Health.OVER, signs.over)
    if signs.trouble is not None and signs.trouble.code.startswith(CHEATING):
        return Verdict(Health.CHEATING, signs.trouble)
    if is_lost(signs, now):
        return Verdict(Health.DEAD, _dead(signs, now))
    if signs.trouble is not None and signs.trouble.code.startswith(UNPAID):
        return Verdict(Health.UNPAID, Reason("replica.unpaid", signs.trouble.text))
    if signs.leaving is not None:
        return Verdict(Health.LEAVING, signs.leaving)
    if signs.missed >= MISSES and seen_well(signs, now):
        return Verdict(Health.UNSEEN, OUT_OF_SIGHT)
    if not signs.crashed and not signs.missed and _all_down(signs, now) and _none_reach(signs, now):
        return Verdict(Health.APART, BETWEEN)
    if signs.crashed or (not signs.missed and _all_down(signs, now)):
        return Verdict(Health.SICK, NOT_SERVING)
    if signs.missed or _silent(signs, now) or seen_down(signs, now):
        return Verdict(Health.SLOW, LATE)
    return WELL


OUT_OF_SIGHT = Reason(
    "replica.unseen", "a gateway reaches it and we do not: our own line is cut, nothing is replaced"
)
NOT_SERVING = Reason("replica.sick", "its provider answers, but what runs there does not")
BETWEEN = Reason(
    "replica.apart",
    "we reach its provider and no gateway does: the line between them is cut, nothing is started anew",
)
LATE = Reason("replica.slow", "a check was missed: no new requests until it answers again")


def is_lost(signs: Signs, now: Instant) -> bool:
    """Three misses of ours and a gateway that agrees; without any gateway's word, a second sign of our own. A gateway
    that still reaches it outvotes us."""
    if signs.missed < MISSES or seen_well(signs, now):
        return False
    return agreed(signs, now) or (not _words(signs, now) and _silent(signs, now))


def agreed(signs: Signs, now: Instant) -> bool:
    """A gateway has lost it as well."""
    return any(word.missed >= MISSES for word in _words(signs, now))


def seen_well(signs: Signs, now: Instant) -> bool:
    return any(word.missed == 0 for word in _words(signs, now))


def seen_down(signs: Signs, now: Instant) -> bool:
    return any(word.missed for word in _words(signs, now))


def is_busy(signs: Signs, now: Instant) -> bool:
    """A gateway still waits for answers from there."""
    return any(word.busy for word in _words(signs, now))


def _all_down(signs: Signs, now: Instant) -> bool:
    words = _words(signs, now)
    return bool(words) and all(word.missed >= MISSES for word in words)


def _none_reach(signs: Signs, now: Instant) -> bool:
    return not any(word.is_reached for word in _words(signs, now))


def _words(signs: Signs, now: Instant) -> list[Seen]:
    return [word for word in signs.gateways.values() if since(word.at, now) <= FRESH]


def _silent(signs: Signs, now: Instant) -> bool:
    return bool(signs.heard_at) and since(signs.heard_at, now) >= SILENCE


def _dead(signs: Signs, now: Instant) -> Reason:
    by = "and by a gateway" if agreed(signs, now) else "and sends no statements"
    return Reason("replica.dead", f"not reached {signs.missed} times in a row by us, {by}")
