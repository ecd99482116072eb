"""MainlineSquare: the PublicSquare port over the BitTorrent Mainline DHT.

An announcement there is an ``ip:port`` and nothing else, so the address is that of a small responder which tells the
node's key. Whoever searches is seen by the DHT's nodes, and by those it asks; nothing goes to a server of ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from dockage.domain.errors import Unavailable
from dockage.domain.identity import NodeKey
from dockage.ports.peers import Address
from dockage.protocol import whois
from dockage.protocol.whois import Introduction

from .introductions import ask, listen
from .session import dht_session, is_local

log = structlog.get_logger("dockage.mainline")

NODES = ("dht.libtorrent.org:25401", "router.bittorrent.com:6881")
"""Where the DHT is entered if the config names nobody: servers of its largest programs."""
ANNOUNCE_EVERY = 900.0
"""Seconds; the DHT forgets after 30 minutes."""
AT_FIRST = 2.0
"""As long as nobody there has answered yet."""
AGAIN = 60.0


class MainlineSquare:
    """*link_port* gives the port of our peer link, 0 while it has none; *host* is the address to listen at."""

    def __init__(
        self,
        network: str,
        nodes: Sequence[str],
        me: NodeKey,
        link_port: Callable[[], int],
        host: str,
        port: int,
        announce_every: float = ANNOUNCE_EVERY,
    ) -> None:
        self._topic, self._nodes = whois.topic(network), tuple(nodes) or NODES
        self._me, self._link_port = me, link_port
        self._host, self._port, self._every = host, port, announce_every

    async def find(self, within: float) -> Sequence[tuple[NodeKey, Address]]:
        told: Sequence[str] = ()
        try:
            async with asyncio.timeout(within):
                async with dht_session(self._host, self._nodes, read_only=True) as dht:
                    told = await dht.peers(self._topic)
        except TimeoutError:
            log.info("mainline.silent", why="nobody has announced himself there, or the DHT does not answer")
        found = await ask(self._host, self._topic, [x for text in told if (x := self._where(text))])
        log.info("mainline.searched", addresses=len(told), answered=len(found))
        return [(key, address) for key, address in found if key != self._me]

    async def stand(self) -> None:
        while True:
            try:
                await self._stand()
            except Unavailable as error:
                log.warning("mainline.not-announced", code=error.code, why=error.message)
            await asyncio.sleep(AGAIN)

    async def _stand(self) -> None:
        transport, port = await listen(self._host, self._port, self._topic, self._introduction)
        try:
            async with dht_session(self._host, self._nodes, read_only=False) as dht:
                while True:
                    dht.announce(self._topic, port)
                    log.debug("mainline.announced", port=port)
                    await asyncio.sleep(self._every if dht.has_entered() else AT_FIRST)
        finally:
            transport.close()

    def _introduction(self) -> Introduction | None:
        port = self._link_port()
        return Introduction(self._me, port) if port else None

    def _where(self, text: str) -> tuple[str, int] | None:
        host, _, port = text.rpartition(":")
        is_allowed = is_local(self._nodes) or whois.is_public(host)
        return (host, int(port)) if is_allowed and 0 < int(port) < 1 << 16 and ":" not in host else None
