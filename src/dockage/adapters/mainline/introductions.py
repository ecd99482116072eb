"""Asking and answering "who are you?" in datagrams (``protocol/whois.py``)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from dockage.domain.errors import PeerError, Unavailable
from dockage.domain.identity import NodeKey
from dockage.ports.peers import Address
from dockage.protocol import whois
from dockage.protocol.whois import Introduction

ANSWERS_A_SECOND = 100
"""Over all who ask: a flood costs us 100 small datagrams a second and no more."""
PATIENCE = 1.0
TRIES = 3

Where = tuple[str, int]
P = TypeVar("P", bound=asyncio.DatagramProtocol)


class Responder(asyncio.DatagramProtocol):
    def __init__(self, topic: bytes, me: Callable[[], Introduction | None]) -> None:
        self._topic, self._me = topic, me
        self._room, self._at = float(ANSWERS_A_SECOND), 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Where) -> None:
        me = self._me()
        if me is None or not self._may_answer():
            return
        try:
            nonce = whois.read_question(data, self._topic)
        except PeerError:
            return
        self._transport.sendto(whois.answer(self._topic, nonce, me), addr)

    def _may_answer(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._room = min(ANSWERS_A_SECOND, self._room + (now - self._at) * ANSWERS_A_SECOND)
        self._at = now
        if self._room < 1:
            return False
        self._room -= 1
        return True


class Asker(asyncio.DatagramProtocol):
    """Each address has a nonce of its own: only it can answer, and only once."""

    def __init__(self, topic: bytes, asked: Sequence[Where]) -> None:
        self._topic = topic
        self.open = {where: secrets.token_bytes(whois.NONCE_BYTES) for where in asked}
        self.found: dict[NodeKey, Address] = {}
        self.done = asyncio.Event()

    def datagram_received(self, data: bytes, addr: Where) -> None:
        nonce = self.open.get(addr[:2])
        if nonce is None:
            return
        try:
            told = whois.read_answer(data, self._topic, nonce)
        except PeerError:
            return
        del self.open[addr[:2]]
        self.found.setdefault(told.key, Address("", (f"{addr[0]}:{told.port}",)))
        if not self.open:
            self.done.set()

    def error_received(self, exc: Exception) -> None:
        """Somebody's router says that there is nobody: the others may still answer."""


async def ask(
    host: str, topic: bytes, asked: Sequence[Where], patience: float = PATIENCE
) -> Sequence[tuple[NodeKey, Address]]:
    """Those who answered, within three times *patience*."""
    if not asked:
        return ()
    transport, asker = await _endpoint(lambda: Asker(topic, asked), host, 0)
    try:
        for _ in range(TRIES):
            for where, nonce in tuple(asker.open.items()):
                transport.sendto(whois.question(topic, nonce), where)
            try:
                async with asyncio.timeout(patience):
                    await asker.done.wait()
                break
            except TimeoutError:
                pass
    finally:
        transport.close()
    return tuple(asker.found.items())


async def listen(
    host: str, port: int, topic: bytes, me: Callable[[], Introduction | None]
) -> tuple[asyncio.DatagramTransport, int]:
    """The transport, which the caller closes, and its port."""
    transport, _ = await _endpoint(lambda: Responder(topic, me), host, port)
    bound: int = transport.get_extra_info("sockname")[1]
    return transport, bound


async def _endpoint(make: Callable[[], P], host: str, port: int) -> tuple[asyncio.DatagramTransport, P]:
    try:
        return await asyncio.get_running_loop().create_datagram_endpoint(make, local_addr=(host, port))
    except OSError as error:
        raise Unavailable("mainline.bind", f"cannot listen on {host}:{port} (UDP): {error}") from None
