"""Streams to peers that cost the link none of their own: tunnels and flows of datagrams share a few bundles a peer.

Counterpart: ``peers.Reception``, which takes the bundles apart again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakValueDictionary

from dockage.domain.errors import Unavailable
from dockage.domain.identity import NodeKey, short
from dockage.ports.peers import Stream
from dockage.protocol import streams
from dockage.protocol.bundles import STREAMS_MAX
from dockage.wire.ahead import Headed
from dockage.wire.bundle import Budget, Bundle
from dockage.wire.frames import frame
from dockage.wire.limits import PEERS

from .peers import Opener
from .tasks import Jobs

FULL = STREAMS_MAX // 2
"""The other side counts a stream a little longer than we do."""


class Bundles:
    def __init__(self, open_stream: Opener, current: Callable[[NodeKey], object | None], jobs: Jobs) -> None:
        """*current*: ``PeerLink.current``."""
        self._open, self._current, self._jobs = open_stream, current, jobs
        self._bundles: dict[NodeKey, list[tuple[Bundle, object | None]]] = {}
        """And the connection that each is on."""
        self._budget = Budget(PEERS.unread)
        self._opening: WeakValueDictionary[NodeKey, asyncio.Lock] = WeakValueDictionary()

    async def open(self, peer: NodeKey, timeout: float = 10.0) -> Stream:
        """An ``Opener`` for the headers in ``peers.BUNDLED``."""
        lock = self._opening.setdefault(peer, asyncio.Lock())
        async with lock:  # a burst of connections begins one bundle
            bundle = self._with_room(peer) or await self._begin(peer, timeout)
            return bundle.open()

    def _with_room(self, peer: NodeKey) -> Bundle | None:
        """A peer that dialled anew is not waited for on the connection that it left."""
        now = self._current(peer)
        mine = self._bundles.get(peer, ()) if now is not None else ()
        return next((x for x, line in mine if line is now and not x.over and x.carried < FULL), None)

    async def _begin(self, peer: NodeKey, timeout: float) -> Bundle:
        head = frame(streams.encode_header(streams.Bundle()))
        stream = Headed(await self._open(peer, timeout), head)
        bundle = Bundle(stream, self._budget)
        if not self._jobs.start(lambda: self._run(peer, bundle), f"bundle to {short(peer)}"):
            stream.abort()
            raise Unavailable("peer.busy", "this node has too much to do; try again")
        self._bundles.setdefault(peer, []).append((bundle, self._current(peer)))
        return bundle

    async def _run(self, peer: NodeKey, bundle: Bundle) -> None:
        try:
            await bundle.run()
        finally:
            left = [each for each in self._bundles.pop(peer) if each[0] is not bundle]
            if left:
                self._bundles[peer] = left
