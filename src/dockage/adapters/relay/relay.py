"""Relay: passes datagrams between nodes that cannot reach each other, by key. It cannot read them.

Counterpart: iroh's relay client inside every peer link. Nothing is believed but a signature over our challenge,
nothing is kept but a short queue for each client, and a client that sends more than its share is read more slowly.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
import ssl
from collections import Counter
from collections.abc import Callable

import structlog
from aiohttp import WSMsgType, web
from blake3 import blake3

from dockage.domain.errors import PeerError
from dockage.domain.identity import NodeKey, short
from dockage.ports.peers import RelayFigures
from dockage.protocol import relaying
from dockage.protocol.signed import Verify
from dockage.wire.bucket import Bucket
from dockage.wire.limits import RELAY, RelayLimits
from dockage.wire.sources import Rates, source_of
from dockage.wire.tolls import TollHost

from .client import Client
from .door import Door

log = structlog.get_logger("dockage.relay")


class Relay:
    """*verify* checks an Ed25519 signature. *admits* says which keys may use it, *tolls* at whose charge; None:
    it is free."""

    def __init__(
        self,
        verify: Verify,
        limits: RelayLimits = RELAY,
        admits: Callable[[NodeKey], bool] = lambda _: True,
        tolls: TollHost | None = None,
    ) -> None:
        self._verify, self._limits, self._admits, self._tolls = verify, limits, admits, tolls
        self._clients: dict[NodeKey, Client] = {}
        self._bytes = self._dropped = self._unpaid = 0
        self._throttled = 0.0
        self._refused: Counter[str] = Counter()
        self._total: Bucket
        self._sources = Rates(limits.rate_source, limits.rate_source, limits.sources)

    async def serve(self, listening: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Until cancelled."""
        self._total = Bucket(self._limits.rate_total, self._limits.rate_total, self._now())
        door = Door(self._answer, self._limits, self._refuse)
        runner = web.ServerRunner(door, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.SockSite(runner, listening, ssl_context=tls).start()
            await asyncio.Event().wait()
        finally:
            async with asyncio.TaskGroup() as tasks:
                for client in self._clients.values():
                    tasks.create_task(client.close())
            await runner.cleanup()

    def figures(self) -> RelayFigures:
        return RelayFigures(
            len(self._clients), self._bytes, self._dropped, self._throttled, dict(self._refused), self._unpaid
        )

    # -- requests --------------------------------------------------------------------------------------
    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        match request.path:
            case relaying.PATH:
                return await self._meet(request)
            case "/ping":  # what a client measures its distance by
                return self._pong(request.query.get("key", ""))
            case "/generate_204":
                return web.Response(status=204, headers=_captive(request.headers.get("X-Iroh-Challenge", "")))
            case _:
                return web.Response(status=404, text="this is a relay of a dockage node\n")

    def _pong(self, key: str) -> web.Response:
        """Nodes of ours say who asks, and are told if nothing would be passed on for that key."""
        known = re.fullmatch("[0-9a-f]{64}", key)
        why = self._tolls.objection(NodeKey(bytes.fromhex(key))) if known and self._tolls else ""
        headers = {"Access-Control-Allow-Origin": "*"}
        return web.Response(status=402 if why else 200, text=why + "\n" if why else None, headers=headers)

    async def _meet(self, request: web.BaseRequest) -> web.StreamResponse:
        ws = web.WebSocketResponse(
            protocols=relaying.VERSIONS,
            max_msg_size=relaying.FRAME_MAX,
            compress=False,
            timeout=1.0,
            decode_text=False,
        )
        if not ws.can_prepare(request).ok:
            return web.Response(status=426, text="this is a relay: it speaks WebSocket\n")
        await ws.prepare(request)
        try:
            async with asyncio.timeout(self._limits.handshake_sec):
                key = await self._prove(ws)
        except (PeerError, TimeoutError, ConnectionError) as error:
            self._refuse(error.code if isinstance(error, PeerError) else "relay.silent")
            await ws.close()
            return ws
        source = source_of(request.remote or "")
        await self._host(Client(key, source, ws, self._limits, self._now()), ws)
        return ws

    async def _prove(self, ws: web.WebSocketResponse) -> NodeKey:
        """Raises PeerError for whoever is not let in."""
        nonce = secrets.token_bytes(relaying.CHALLENGE_SIZE)
        await ws.send_bytes(relaying.challenge(nonce))
        said = await ws.receive()
        auth = relaying.decode_auth(said.data if said.type is WSMsgType.BINARY else b"")
        signed = blake3(nonce, derive_key_context=relaying.CONTEXT).digest()
        if not self._verify(auth.key, signed, auth.signature):
            await ws.send_bytes(relaying.denied("signature invalid"))
            raise PeerError("relay.forged", "the signature of a relay's challenge is not the key's")
        if len(self._clients) >= self._limits.clients and auth.key not in self._clients:
            await ws.send_bytes(relaying.denied("full"))
            raise PeerError("relay.full", "this relay has as many clients as it takes")
        if not self._admits(auth.key):
            await ws.send_bytes(relaying.denied("not for you"))
            raise PeerError("relay.closed", "this relay is not open to that key")
        await ws.send_bytes(relaying.confirmed())
        return auth.key

    # -- clients ---------------------------------------------------------------------------------------
    async def _host(self, client: Client, ws: web.WebSocketResponse) -> None:
        """Until it leaves, or is seen to be gone. A second one with its key takes the place of the first."""
        if older := self._clients.get(client.key):
            older.tell(relaying.SAME_KEY)
        self._clients[client.key] = client
        log.debug("relay.entered", peer=short(client.key))
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = [tasks.create_task(client.deliver()), tasks.create_task(client.watch())]
                await self._listen(client, ws)
                for task in beside:
                    task.cancel()
        except* PeerError as errors:
            self._refuse(_code(errors))
        except* (TimeoutError, ConnectionError):
            pass
        finally:
            if self._clients.get(client.key) is client:
                del self._clients[client.key]
            log.debug("relay.left", peer=short(client.key))
            await ws.close()

    async def _listen(self, client: Client, ws: web.WebSocketResponse) -> None:
        async for said in ws:
            if said.type is not WSMsgType.BINARY:
                raise PeerError("relay.frame", "a relay takes binary messages only")
            client.heard = self._now()
            await self._take(client, relaying.decode(said.data))

    async def _take(self, client: Client, said: relaying.FromClient) -> None:
        match said:
            case relaying.Datagrams():
                self._pass_on(client, said)
                await self._keep_to_rate(client, len(said.frame))
            case relaying.Ping(payload):
                client.offer(relaying.pong(payload))
                await self._keep_to_rate(client, len(payload))
            case relaying.Pong():
                await self._keep_to_rate(client, 1)

    def _pass_on(self, client: Client, said: relaying.Datagrams) -> None:
        if self._clients.get(client.key) is not client:
            return  # another one has its key by now; closing it would have the two take turns for ever
        to = self._clients.get(said.to)
        count = self._tolls.charge(client.key, said.to) if self._tolls else _free
        if count is None:
            self._unpaid += 1
        if to is None or count is None:
            client.offer(relaying.gone(said.to))
        elif to.offer(said.passed_on(client.key)):
            self._bytes += len(said.frame)
            count(said.size)  # only what is on its way: what is dropped is nobody's bill
        else:
            self._dropped += 1

    async def _keep_to_rate(self, client: Client, size: int) -> None:
        """Reading on later is all it takes: TCP then slows the sender down, and nothing need be dropped."""
        now = self._now()
        shares = (client.bucket, self._sources.of(client.source, now), self._total)
        wait = max(share.owe(now, size) for share in shares)
        if wait <= 0:
            return
        if not client.was_throttled:
            client.was_throttled = True
            client.tell(relaying.THROTTLED)
        self._throttled += wait
        await asyncio.sleep(wait)

    # -- small things ------------------------------------------------------------------------------------
    def _refuse(self, code: str) -> None:
        self._refused[code.removeprefix("relay.")] += 1

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _free(_: int) -> None:
    """Nobody counts for whom."""


def _code(errors: BaseExceptionGroup[PeerError]) -> str:
    first = errors.exceptions[0]
    return first.code if isinstance(first, PeerError) else _code(first)


def _captive(challenge: str) -> dict[str, str]:
    """How a client learns that no portal stands between us. Only what cannot break a header is echoed."""
    plain = re.fullmatch(r"[A-Za-z0-9._-]{1,64}", challenge)
    return {"X-Iroh-Response": f"response {challenge}"} if plain else {}
