"""Reaching a peer whose address changed: what the link does not know any more, the market may.

A home machine gets a new address every day and a new port at every restart. Nodes that can be called keep a record
of where they are on the board; a dial that fails looks there once and tries again.
"""

from __future__ import annotations

from dockage.domain.errors import PeerError, Unavailable
from dockage.domain.identity import NodeKey
from dockage.ports.machine import Clock, Keys
from dockage.ports.peers import Address, Directory, PeerLink, Stream
from dockage.protocol.records import NodeBody, node_topic, open_record

LOOK_UP_EVERY = 5.0
"""Seconds between two look-ups of one peer: a dead one must not keep the market busy."""
REMEMBERED = 1024


class Reach:
    def __init__(self, link: PeerLink, directory: Directory, keys: Keys, clock: Clock) -> None:
        self._link, self._directory, self._keys, self._clock = link, directory, keys, clock
        self._looked: dict[NodeKey, int] = {}

    async def open(self, peer: NodeKey, timeout: float = 10.0) -> Stream:
        """As ``PeerLink.open``; may take three times *timeout* for a peer that moved."""
        try:
            return await self._link.open(peer, timeout)
        except Unavailable:
            if not await self._look_up(peer):
                raise
            return await self._link.open(peer, timeout)

    async def _look_up(self, peer: NodeKey) -> bool:
        """Whether the board told us something about *peer*."""
        now = self._clock.now()
        if now - self._looked.get(peer, 0) < LOOK_UP_EVERY * 1e9:
            return False
        if len(self._looked) >= REMEMBERED:
            self._looked.clear()
        self._looked[peer] = now
        try:
            records = await self._directory.search(node_topic(peer))
        except Unavailable:
            return False
        return any(self._learn(peer, blob) for blob in records)

    def _learn(self, peer: NodeKey, blob: bytes) -> bool:
        try:
            record = open_record(blob, self._keys.verify, self._clock.now())
        except PeerError:
            return False
        if record.key != peer or not isinstance(record.body, NodeBody):
            return False
        self._link.learn(peer, Address(record.body.relay, record.body.direct))
        return True
