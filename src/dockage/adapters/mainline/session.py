"""One libtorrent session that does nothing but the DHT (BEP 5): no torrents, no peers, no port mapping, no LSD."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import libtorrent as lt

from dockage.domain.errors import Unavailable

POLL = 0.1
ASK_AGAIN = 2.0
FOR_EVER = 1e9
PEERS_MAX = 64
"""Addresses of one search; who announces many cannot make us ask more."""
SETTLE = 2.0
"""Seconds a search goes on after its first addresses."""
_QUIET = {
    "enable_dht": True,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_tcp": False,
    "enable_outgoing_tcp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "user_agent": "dockage",
    "alert_mask": lt.alert.category_t.dht_notification
    | lt.alert.category_t.dht_operation_notification
    | lt.alert.category_t.status_notification
    | lt.alert.category_t.error_notification,
}
_ON_LOOPBACK = {
    "dht_restrict_routing_ips": False,
    "dht_restrict_search_ips": False,
    "dht_ignore_dark_internet": False,
    "dht_prefer_verified_node_ids": False,
    "dht_enforce_node_id": False,
}
"""Many nodes at one address are an attack, except in a network on one machine."""


class DhtSession:
    def __init__(self, session: Any) -> None:
        self._session = session
        self._peers: dict[str, None] = {}
        self._entered = False

    def has_entered(self) -> bool:
        """Whether other nodes of the DHT have answered."""
        self._drain(b"")
        return self._entered

    async def peers(self, topic: bytes) -> Sequence[str]:
        """``ip:port`` of those who announced *topic*, once there are any; runs until then."""
        self._peers.clear()
        loop = asyncio.get_running_loop()
        until, asked = loop.time() + FOR_EVER, -FOR_EVER
        while loop.time() < until and len(self._peers) < PEERS_MAX:
            if (
                loop.time() - asked >= ASK_AGAIN
            ):  # at first we know one node, and one lookup asks whom we know
                self._session.dht_get_peers(lt.sha1_hash(topic))
                asked = loop.time()
            if self._drain(topic):
                until = min(until, loop.time() + SETTLE)
            await asyncio.sleep(POLL)
        return tuple(self._peers)

    def announce(self, topic: bytes, port: int) -> None:
        self._session.dht_announce(lt.sha1_hash(topic), port, 0)
        self._drain(b"")

    def _drain(self, topic: bytes) -> bool:
        """Whether addresses came."""
        before = len(self._peers)
        for alert in self._session.pop_alerts():
            if isinstance(alert, lt.dht_bootstrap_alert):
                self._entered = True
            elif isinstance(alert, lt.dht_get_peers_reply_alert) and alert.info_hash.to_bytes() == topic:
                for host, port in alert.peers()[:PEERS_MAX]:
                    if len(self._peers) < PEERS_MAX:
                        self._peers[f"{host}:{port}"] = None
        return len(self._peers) > before


@asynccontextmanager
async def dht_session(host: str, nodes: Sequence[str], *, read_only: bool) -> AsyncIterator[DhtSession]:
    """*nodes*: ``host:port`` to enter by. *read_only* (BEP 43): we ask, and nobody asks us. Raises
    Unavailable("mainline.unreachable")."""
    settings: Any = {
        **_QUIET,
        **(_ON_LOOPBACK if is_local(nodes) else {}),
        "listen_interfaces": f"{host}:0",
        "dht_bootstrap_nodes": ",".join(nodes),
        "dht_read_only": read_only,
    }
    try:
        session = [lt.session(settings)]
    except RuntimeError as error:
        raise Unavailable("mainline.unreachable", f"the BitTorrent DHT cannot be used: {error}") from None
    try:
        yield DhtSession(session[0])
    finally:
        await asyncio.shield(asyncio.to_thread(session.pop))  # its end waits for its threads


def is_local(nodes: Sequence[str]) -> bool:
    """Whether the network is one on this machine."""
    return bool(nodes) and all(_is_loopback(node.rpartition(":")[0]) for node in nodes)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
