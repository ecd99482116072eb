"""How much a provider serves on funding that is not confirmed yet: exactly what a double spend can cost it.

A stranger gets what the provider chose (0 by default). A tenant with a history gets a tenth of what it has really
paid more: the chain has buried it, so nobody can make it up, and who runs away with the credit has paid ten times
as much before.
"""

from __future__ import annotations

from collections.abc import Iterable

from .channel import Channel, ChannelState
from .units import Sat

SHARE = 10
"""One part in so many of what was paid and settled is lent."""


def credit(history: Iterable[Channel], stranger: Sat, most: Sat) -> Sat:
    """For a tenant with these channels; never more than the larger of *stranger* and *most*. A funding that was lost
    after something was paid on it ends the credit, until it comes after all."""
    settled = 0
    for channel in history:
        if channel.state is ChannelState.ABANDONED and channel.paid:
            return Sat(0)
        earned = not (channel.is_spent_by_other or channel.is_given_back)
        if channel.state is ChannelState.CLOSED and earned:
            settled += channel.paid
    return Sat(min(max(stranger, most), stranger + settled // SHARE))
