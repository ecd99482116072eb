"""A lease: a metered Docker engine, rented by the second. Its states, and who is allowed to move it where."""

from __future__ import annotations

import enum

import msgspec

from .reason import Reason
from .units import Instant


class LeaseState(enum.StrEnum):
    QUOTING = "quoting"
    """Tenant only: a provider was asked for its binding price."""
    FUNDING = "funding"
    """Tenant only: the channel to the provider is being opened."""
    OPENING = "opening"
    """The provider prepares cgroup, network and disk."""
    RUNNING = "running"
    PAUSED = "paused"
    """Unpaid: the containers are frozen, still held, and go on as soon as payment arrives."""
    ENDING = "ending"
    """The final reading is taken and everything is removed."""
    ENDED = "ended"


class Ending(msgspec.Struct, frozen=True):
    """The announced end of a lease that still runs: its tenant has until then to move."""

    at: Instant
    reason: Reason
    said_at: Instant = Instant(0)
    """When the provider said so last."""

    def is_like(self, other: Ending | None) -> bool:
        """The same end, whenever it was said."""
        return other is not None and (self.at, self.reason) == (other.at, other.reason)


TRANSITIONS: dict[LeaseState, frozenset[LeaseState]] = {
    LeaseState.QUOTING: frozenset({LeaseState.FUNDING, LeaseState.OPENING, LeaseState.ENDED}),
    LeaseState.FUNDING: frozenset({LeaseState.QUOTING, LeaseState.OPENING, LeaseState.ENDED}),
    LeaseState.OPENING: frozenset(
        {
            LeaseState.QUOTING,  # the quote expired meanwhile, or the next candidate is asked
            LeaseState.FUNDING,  # the channel that was there will not do
            LeaseState.RUNNING,
            LeaseState.ENDING,
            LeaseState.ENDED,
        }
    ),
    LeaseState.RUNNING: frozenset({LeaseState.PAUSED, LeaseState.ENDING, LeaseState.ENDED}),
    LeaseState.PAUSED: frozenset({LeaseState.RUNNING, LeaseState.ENDING, LeaseState.ENDED}),
    LeaseState.ENDING: frozenset({LeaseState.ENDED}),
    LeaseState.ENDED: frozenset(),
}
"""Read by the property test, by the diagram in the docs, and by people."""

METERED = frozenset({LeaseState.RUNNING, LeaseState.PAUSED})
"""States in which readings are taken and statements are sent."""


def check_move(before: LeaseState, after: LeaseState) -> LeaseState:
    """A move that is not in the table is a bug of ours, never a peer's doing."""
    assert before is after or after in TRANSITIONS[before], (before, after)
    return after
