"""A gateway's door: tenants publish their deployments here and watch how they look, and the operator drops some.

What is published survives a restart: the signed documents are journalled and opened anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence

import structlog
from msgspec.structs import replace

from dockage.domain.deployment import Document, without
from dockage.domain.errors import DockageError, PeerError, Unavailable, UsageError
from dockage.domain.identity import LeaseId, NodeKey, short
from dockage.domain.lease import METERED
from dockage.domain.reason import TEXT_MAX
from dockage.node.provider import Provider
from dockage.ports.hosting import Gateway
from dockage.ports.machine import Clock, Journal, Keys, Row
from dockage.ports.peers import Stream
from dockage.protocol import streams
from dockage.protocol.documents import (
    DOCUMENT_MAX,
    Answer,
    Refused,
    Signs,
    Taken,
    encode_answer,
    encode_signs,
    open_document,
)
from dockage.protocol.letters import open_letter
from dockage.wire.frames import read_frame, write_frame

from .driver import Driver
from .ondisk import on_disk
from .ownership import Ownership
from .peers import Reception

log = structlog.get_logger("dockage.gateway")

DOCUMENT, LETTER, LACKING, DROP = "document", "document-letter", "document-lacking", "gateway-drop"
"""Kinds of rows: a signed document by lease, the letter that came with it, its hosts that are not served; a name that
the operator dropped."""
READ_SEC = 10.0
SIGN_EVERY = 1.0
SIGN_PAUSE = 0.05
"""Between two frames of signs, however much happens."""
WATCHERS_MAX = 4
"""Of one lease."""


class Ingress:
    def __init__(
        self,
        driver: Driver[Provider],
        gateway: Gateway,
        owns: Ownership,
        keys: Keys,
        clock: Clock,
        journal: Journal,
        rows: Iterable[Row],
    ) -> None:
        self._driver, self._gateway, self._owns, self._keys = driver, gateway, owns, keys
        self._clock, self._journal = clock, journal
        self._dropped: set[str] = set()
        self._kept: dict[LeaseId, bytes] = {}
        self._letters: dict[LeaseId, bytes] = {}
        """Of leases where a deputy publishes in its tenant's place."""
        self._lacking: dict[LeaseId, bytes] = {}
        """Hosts with spaces between them."""
        self._watchers: dict[LeaseId, int] = {}
        for row in rows:
            if row.kind == DROP:
                self._dropped.add(row.key.decode())
            elif row.kind == DOCUMENT:
                self._kept[LeaseId(row.key)] = row.value
            elif row.kind == LETTER and row.value:
                self._letters[LeaseId(row.key)] = row.value
            elif row.kind == LACKING and row.value:
                self._lacking[LeaseId(row.key)] = row.value

    def register(self, reception: Reception) -> None:
        reception.serve_kind(streams.Publish, self._publish)
        reception.serve_kind(streams.Watch, self._watch)

    async def run(self) -> None:
        """Serve again what was served before the restart, then go on until cancelled."""
        self._gateway.drop(self._dropped)
        for lease, blob in self._kept.items():
            try:
                renter, letter = self._check_lease(lease), self._letters.get(lease, b"")
                lacking = self._lacking.get(lease, b"").decode().split()
                document = _served(self._opened(renter, blob, letter), lacking)
                await self._gateway.publish(lease, document)
                self._owns.remember(document)
            except DockageError as error:
                log.info("gateway.not-again", lease=short(lease), code=error.code)
                await on_disk(self._journal.forget, [(kind, lease) for kind in (DOCUMENT, LETTER, LACKING)])
        self._kept.clear()
        await self._gateway.serve()

    # -- the operator ----------------------------------------------------------------------------------
    @property
    def documents(self) -> Mapping[LeaseId, Document]:
        return self._gateway.documents()

    def signs(self, lease: LeaseId) -> Signs | None:
        return self._gateway.signs(lease)

    @property
    def dropped(self) -> Sequence[str]:
        return sorted(self._dropped)

    async def drop(self, name: str) -> Sequence[LeaseId]:
        """Never serve *name* (a host name, or a tenant's key in hex); the leases that were cut off."""
        self._dropped.add(name)
        await on_disk(self._journal.write, [Row(DROP, name.encode(), b"")])
        cut = tuple(self._gateway.drop(self._dropped))
        log.info("gateway.dropped", name=name, leases=[short(lease) for lease in cut])
        return cut

    async def allow(self, name: str) -> None:
        """Raises UsageError("gateway.not-dropped")."""
        if name not in self._dropped:
            raise UsageError("gateway.not-dropped", f"{name} is not dropped: see `dockage gateway`")
        self._dropped.discard(name)
        await on_disk(self._journal.forget, [(DROP, name.encode())])
        self._gateway.drop(self._dropped)

    # -- tenants ---------------------------------------------------------------------------------------
    async def _publish(self, peer: NodeKey, header: streams.Publish, stream: Stream) -> None:
        self._check_tenant(peer, header.lease)
        async with asyncio.timeout(READ_SEC):
            blob = await read_frame(stream, DOCUMENT_MAX)
        await write_frame(stream, encode_answer(await self._take(peer, header, blob)))
        await stream.finish()

    async def _take(self, peer: NodeKey, header: streams.Publish, blob: bytes) -> Answer:
        lease, letter = header.lease, header.letter
        document = self._opened(peer, blob, letter)
        try:
            lacking = await self._owns.lacking(document)
            self._check_lease(lease)
            await self._gateway.publish(lease, _served(document, lacking))
        except (UsageError, Unavailable) as error:
            return Refused(error.code, error.message[:TEXT_MAX])
        rows = [Row(DOCUMENT, lease, blob)]
        beside = (LETTER, self._letters, letter), (LACKING, self._lacking, " ".join(lacking).encode())
        for kind, kept, value in beside:
            if value != kept.get(lease, b""):
                kept[lease] = value
                rows.append(Row(kind, lease, value))
        await on_disk(self._journal.write, rows)
        return Taken(document.epoch, tuple(lacking), next(iter(lacking.values()), None))

    def _opened(self, renter: NodeKey, blob: bytes, letter: bytes) -> Document:
        """Of who rents the lease, or of the tenant whose *letter* it shows."""
        now, verify = self._clock.now(), self._keys.verify
        if not letter:
            document = open_document(blob, now, verify)
            if document.tenant != renter:
                raise PeerError("document.other", "the document is of another tenant than the lease")
            return document
        word = open_letter(letter, renter, now, verify)
        document = open_document(blob, now, verify, renter)
        if (document.tenant, document.name) != (word.tenant, word.name):
            raise PeerError("document.other", "the document is of another deployment than the letter")
        return document

    async def _watch(self, peer: NodeKey, header: streams.Watch, stream: Stream) -> None:
        lease = header.lease
        self._check_tenant(peer, lease)
        if self._watchers.get(lease, 0) >= WATCHERS_MAX:
            raise Unavailable("lease.busy", f"{WATCHERS_MAX} watch the lease {short(lease)} already")
        self._watchers[lease] = self._watchers.get(lease, 0) + 1
        try:
            while (signs := self._gateway.signs(lease)) is not None:
                await write_frame(stream, encode_signs(signs))
                await self._gateway.moved(lease, SIGN_EVERY)
                await asyncio.sleep(SIGN_PAUSE)
            raise Unavailable("document.none", "nothing is published at this lease")
        finally:
            self._watchers[lease] -= 1
            if not self._watchers[lease]:
                del self._watchers[lease]

    def _check_tenant(self, peer: NodeKey, lease: LeaseId) -> None:
        held = self._driver.state.leases.get(lease)
        if held is None or held.tenant != peer:
            raise PeerError("lease.unknown", "no such lease of yours here")

    def _check_lease(self, lease: LeaseId) -> NodeKey:
        """Who rents it."""
        held = self._driver.state.leases.get(lease)
        if held is None or held.state not in METERED:
            raise Unavailable("lease.ended", f"the lease {short(lease)} does not run")
        return held.tenant


def _served(document: Document, lacking: Collection[str]) -> Document:
    return replace(document, sites=without(document.sites, lacking)) if lacking else document
