"""What one pair owes and has paid, over all their leases and channels.

A channel belongs to a pair, not to a lease: the dues of all leases of the pair are one sum, divided into
whole satoshis once. ``paid`` is the sum over their channels of what is signed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

import msgspec

from dockage.domain.channel import Channel, ChannelState
from dockage.domain.units import Instant, Msat, Sat, msat, whole_sat

K = TypeVar("K")
V = TypeVar("V")

NOTHING = Sat(0)


def put(mapping: Mapping[K, V], key: K, value: V) -> dict[K, V]:
    """A copy with one entry changed: states are never mutated, so a refused event leaves no trace."""
    return {**mapping, key: value}


class Account(msgspec.Struct, frozen=True):
    due: Msat = Msat(0)
    """Of all leases of the pair, ended ones too."""
    paid: Sat = Sat(0)
    loose: Sat = Sat(0)
    """Provider: signed on funding that is not deep enough; ``paid`` counts only ``credited`` of it."""
    credited: Sat = Sat(0)
    exposure: Msat = Msat(0)
    """Provider: the most that may be owed, the sum over the leases that are held."""
    late_since: Instant | None = None
    """Provider: since when ``late_due`` is not covered."""
    late_due: Msat = Msat(0)
    """An older ``due``. Not the present one: who pays each tick one tick later is not late for ever."""

    @property
    def owed_sat(self) -> Sat:
        """Whole satoshis still to be signed; never negative."""
        return Sat(max(0, whole_sat(self.due) - self.paid))

    @property
    def unpaid(self) -> Msat:
        return Msat(max(0, self.due - msat(self.paid)))

    @property
    def is_late(self) -> bool:
        return self.late_since is not None and whole_sat(self.late_due) > self.paid

    @property
    def at_risk(self) -> Msat:
        """What was served and would be unpaid if the fundings that are not deep enough were double-spent."""
        return Msat(max(0, self.due - msat(Sat(self.paid - self.credited))))

    def after_payment(self, paid: Sat, loose: Sat = NOTHING, credited: Sat = NOTHING) -> Account:
        late = self.late_since is not None and whole_sat(self.late_due) > paid
        return msgspec.structs.replace(
            self,
            paid=paid,
            loose=loose,
            credited=credited,
            late_since=self.late_since if late else None,
            late_due=self.late_due if late else Msat(0),
        )

    def after_tick(self, added: Msat, now: Instant) -> Account:
        """A new due. Whatever is owed now was stated at least one tick ago, so it starts to be late."""
        due = Msat(self.due + added)
        if self.is_late:
            return msgspec.structs.replace(self, due=due)
        late_since, late_due = (now, self.due) if self.owed_sat else (None, Msat(0))
        return msgspec.structs.replace(self, due=due, late_since=late_since, late_due=late_due)


class Signed(NamedTuple):
    """What one peer has signed on its channels."""

    firm: Sat
    """On fundings that are deep enough."""
    loose: Sat
    """On fundings that the chain has shown and that may yet be double-spent."""


def signed(channels: Iterable[Channel]) -> Signed:
    """Of one peer. What is signed on a funding that nobody has seen is worth nothing, nor on one that was lost."""
    firm = loose = 0
    for channel in channels:
        if channel.state is ChannelState.ABANDONED:
            continue
        if channel.state is not ChannelState.FUNDED:
            firm += channel.paid
        elif channel.seen:
            loose += channel.paid
    return Signed(Sat(firm), Sat(loose))
