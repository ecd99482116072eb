"""How much each peer may ask for: a token bucket per key, bounded in number. Pure: the caller brings the time."""

from __future__ import annotations

from collections import OrderedDict

from dockage.domain.identity import NodeKey
from dockage.domain.units import SECOND, Instant


class Allowance:
    """*rate* tokens a second, *burst* at most saved up. Keys cost a stranger nothing, so this alone stops no
    flood of keys; it stops one peer from taking what the others need."""

    def __init__(self, rate: int, burst: int, peers_max: int = 4096) -> None:
        self._rate, self._full, self._peers_max = rate, burst * SECOND, peers_max
        self._left: OrderedDict[NodeKey, tuple[int, Instant]] = OrderedDict()

    def take(self, peer: NodeKey, cost: int, now: Instant) -> bool:
        left, at = self._left.pop(peer, (self._full, now))
        left = min(self._full, left + max(0, now - at) * self._rate)
        granted = left >= cost * SECOND
        self._left[peer] = (left - cost * SECOND if granted else left, now)
        if len(self._left) > self._peers_max:
            self._left.popitem(last=False)
        return granted
