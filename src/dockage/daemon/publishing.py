"""The tenant's side of gateways: grants for their tunnels, documents told to them, their signs, and fences.

Counterpart: ``ingress.py``. Which leases pass bytes through which gateway is written down before a document leaves: the
bills of both are held against each other (``relayed.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from dockage.domain.deployment import Document
from dockage.domain.errors import PeerError, Unavailable, UsageError
from dockage.domain.identity import LeaseId, NodeKey, short
from dockage.domain.reason import TEXT_MAX
from dockage.domain.units import Instant
from dockage.node.tenant import Tenant
from dockage.ports.machine import Keys
from dockage.ports.peers import Stream
from dockage.protocol import streams
from dockage.protocol.documents import (
    ANSWER_MAX,
    SIGNS_MAX,
    Refused,
    Signs,
    Taken,
    decode_answer,
    decode_signs,
    sign_document,
)
from dockage.protocol.grants import Grant, sign_grant
from dockage.wire.frames import next_frame, read_frame, write_frame

from .driver import Driver
from .peers import Opener
from .relayed import Relayed

DIAL = 5.0
ANSWER = 10.0
"""Seconds."""
SILENCE = 5.0
"""Without a frame of signs: the gateway is slow, cut off or gone."""


class Publisher:
    def __init__(self, driver: Driver[Tenant], open_stream: Opener, keys: Keys, relayed: Relayed) -> None:
        self._driver, self._open, self._keys, self._relayed = driver, open_stream, keys, relayed

    def grant(
        self, lease: LeaseId, holder: NodeKey, epoch: int, expires: Instant, ports: Sequence[int] = ()
    ) -> bytes:
        """Our word to the provider of *lease* that *holder* may open tunnels to *ports* of its containers."""
        grant = Grant(self._keys.node, lease, holder, ("tunnel",), epoch, expires, tuple(ports))
        return sign_grant(grant, self._keys.sign)

    async def publish(self, lease: LeaseId, document: Document, letter: bytes = b"") -> Taken:
        """Tell the gateway at which we rent *lease*; *letter*: of the tenant in whose place we do. Raises UsageError
        with the gateway's own code ("document.*" | "site.*"), PeerError, or Unavailable."""
        blob = sign_document(document, self._keys.sign)
        await self._relayed.pair(lease, [replica.lease for replica in document.replicas])
        stream = await self._stream(lease, streams.Publish(lease, letter))
        try:
            async with asyncio.timeout(ANSWER):
                await write_frame(stream, blob)
                answer = decode_answer(await read_frame(stream, ANSWER_MAX))
        except TimeoutError:
            raise Unavailable("peer.slow", "the gateway did not answer") from None
        finally:
            stream.abort()
        if isinstance(answer, Refused):
            raise UsageError(answer.code[:40], f"the gateway refused: {answer.message[:TEXT_MAX]}")
        if answer.epoch != document.epoch:
            raise PeerError("document.answer", "the gateway took another document than it was told")
        return answer

    async def watch(self, lease: LeaseId) -> AsyncGenerator[Signs]:
        """What the gateway sees, at least once a second. Raises Unavailable once it is silent or gone: a sign, too."""
        stream = await self._stream(lease, streams.Watch(lease))
        try:
            while True:
                async with asyncio.timeout(SILENCE):
                    frame = await next_frame(stream, SIGNS_MAX)
                if frame is None:
                    raise Unavailable("gateway.silent", "the gateway ended its signs")
                yield decode_signs(frame)
        except TimeoutError:
            raise Unavailable("gateway.silent", f"no sign of the gateway for {SILENCE:.0f} s") from None
        finally:
            stream.abort()

    async def fence(self, lease: LeaseId, epoch: int) -> int:
        """Void grants of *lease* below *epoch* at its provider; the epoch that counts there now. Raises Unavailable:
        then nothing is known."""
        stream = await self._stream(lease, streams.Fence(lease, epoch))
        try:
            async with asyncio.timeout(ANSWER):
                answer = streams.decode_header(await read_frame(stream, streams.HEADER_MAX))
        except TimeoutError:
            raise Unavailable("peer.slow", "the provider did not confirm the fence") from None
        finally:
            stream.abort()
        if not isinstance(answer, streams.Fence) or answer.lease != lease or answer.epoch < epoch:
            raise PeerError("fence.answer", "the provider's answer to a fence is none")
        return answer.epoch

    async def _stream(self, lease: LeaseId, header: streams.AnyHeader) -> Stream:
        mine = self._driver.state.leases.get(lease)
        if mine is None:
            raise Unavailable("lease.ended", f"there is no lease {short(lease)}")
        stream = await self._open(mine.provider, DIAL)
        await write_frame(stream, streams.encode_header(header))
        return stream
