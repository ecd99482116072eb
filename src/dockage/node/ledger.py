"""What one pair owes and has paid, over all their leases and channels.

A channel belongs to a pair, not to a lease: the dues of all leases of the pair are one sum, divided into
whole satoshis once. ``paid`` is the sum over their channels of what is signed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from dockage.domain.channel import Channel, ChannelState
from dockage.domain.identity import NodeKey
from dockage.domain.units import Instant, Msat, Sat, msat, whole_sat

K = TypeVar("K")
V = TypeVar("V")


def put(mapping: Mapping[K, V], key: K, value: V) -> dict[K, V]:
    """A copy with one entry changed: states are never mutated, so a refused event leaves no trace."""
    return {**mapping, key: value}


class Account(msgspec.Struct, frozen=True):
    due: Msat = Msat(0)
    """Of all leases of the pair, ended ones too."""
    paid: Sat = Sat(0)
    late_since: Instant | None = None
    """Provider: since when the due of an earlier tick is not covered."""

    @property
    def owed_sat(self) -> Sat:
        """Whole satoshis still to be signed; never negative."""
        return Sat(max(0, whole_sat(self.due) - self.paid))

    @property
    def unpaid(self) -> Msat:
        return Msat(max(0, self.due - msat(self.paid)))


def secured(channels: Iterable[Channel], peer: NodeKey, credit: Sat) -> Sat:
    """What *peer* has paid: on funding that is not yet deep enough only *credit* counts, whatever is signed."""
    firm = loose = 0
    for channel in channels:
        if channel.peer != peer or channel.state is ChannelState.ABANDONED:
            continue
        if channel.state is ChannelState.FUNDED:
            loose += channel.paid
        else:
            firm += channel.paid
    return Sat(firm + min(loose, credit))
