"""The gateway's name server: keeps what answers are made of (``protocol/authority.py``) and makes them.

The documents of its tenants are at hand; zones of other tenants are read in the market when somebody asks, and kept for
a minute; the other gateways of its own tenants are tried every few seconds.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

import structlog

from dockage.domain.deployment import Document, app_label
from dockage.domain.errors import PeerError, Unavailable
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.units import MINUTE, SECOND, Duration, Instant, after
from dockage.ports.machine import Clock
from dockage.ports.peers import Directory
from dockage.protocol import dns
from dockage.protocol.authority import Address, Answer, Ask, Place, Self, View, look_up, places
from dockage.protocol.records import ZoneBody, open_record, zone_topic
from dockage.protocol.signed import Verify
from dockage.protocol.zones import Zone, read_zone

log = structlog.get_logger("dockage.naming")

FRESH = Duration(MINUTE)
"""A zone that was read is asked for again after this."""
NEGATIVE = Duration(20 * SECOND)
"""The same for a key without a zone, and for a market that did not answer."""
ZONES_MAX = 4096
SOON = Duration(10 * SECOND)
"""The same for one that names fewer gateways than a document of that tenant: another has just been rented."""
READS_MAX = 32
"""Zones that are being read at one time: random keys cost the market no more."""
READ_SEC = 2.0
LOOK_SEC = 0.25
"""How often documents are looked at anew: the delay with which a published name is answered."""
PROBE_SEC = 3.0
PROBED_MAX = 256

Documents = Callable[[], Mapping[LeaseId, Document]]
Up = Callable[[LeaseId], bool]
Probe = Callable[[str], Awaitable[bool]]


class Known(NamedTuple):
    zone: Zone
    until: Instant
    """Then it is read again."""


class Naming:
    def __init__(
        self,
        zone: str,
        addresses: tuple[str, ...],
        documents: Documents,
        up: Up,
        directory: Directory,
        verify: Verify,
        clock: Clock,
        probe: Probe,
    ) -> None:
        self._self = Self(zone, tuple(dns.address(x) for x in addresses), clock.now() // SECOND)
        self._documents, self._up, self._probe = documents, up, probe
        self._directory, self._verify, self._clock = directory, verify, clock
        self._published: Mapping[LeaseId, Document] = {}
        self._places: Mapping[str, Place] = {}
        self._known = OrderedDict[NodeKey, Known]()
        self._zones = dict[NodeKey, Zone]()
        self._reads = dict[NodeKey, asyncio.Event]()
        self._dead = set[Address]()

    @property
    def names(self) -> Collection[str]:
        """Host names that are published here."""
        return self._places.keys()

    # -- answers ---------------------------------------------------------------------------------------
    def respond(self, message: bytes, over_tcp: bool) -> bytes | Coroutine[Any, Any, bytes] | None:
        query = dns.read_query(message)
        if query is None:
            return None
        room = dns.MESSAGE_MAX if over_tcp else 0
        if query.fault:
            return dns.write_response(query, query.fault, room=room)
        found = look_up(self._view(), query.name, query.kind, query.id)
        if isinstance(found, Ask):
            return self._fetched(query, found, room)
        return _written(query, found, room)

    def _view(self) -> View:
        return View(self._self, self._places, self._zones, self._up, self._dead)

    async def _fetched(self, query: dns.Query, ask: Ask, room: int) -> bytes:
        await self.read(ask.tenant)
        found = look_up(self._view(), query.name, query.kind, query.id)
        if isinstance(found, Ask):
            return dns.write_response(query, dns.SERVFAIL, room=room)
        return _written(query, found, room)

    def prove(self, proofs: Collection[str]) -> None:
        """That the zone is ours, to an authority for certificates: shown from now on, in place of those before."""
        self._self = self._self._replace(proofs=tuple(proofs))

    # -- what they are made of -------------------------------------------------------------------------
    async def keep_up(self) -> None:
        """Until cancelled: documents, zones and the other gateways are looked at again and again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_zones())
            tasks.create_task(self._keep_probing())
            while True:
                self.look()
                await asyncio.sleep(LOOK_SEC)

    def look(self) -> None:
        published = self._documents()
        if published != self._published:
            self._published, self._places = dict(published), places(published)
            self._self = self._self._replace(serial=self._clock.now() // SECOND)

    async def _keep_zones(self) -> None:
        while True:
            for tenant in {document.tenant for document in self._published.values()}:
                await self.read(tenant)
            await asyncio.sleep(PROBE_SEC)

    async def read(self, tenant: NodeKey) -> None:
        """Makes sure that the zone of *tenant* is known as far as it can be. One read for all who ask at once."""
        known = self._known.get(tenant)
        if known is not None and self._clock.now() < known.until:
            return
        going = self._reads.get(tenant)
        if going is not None:
            await going.wait()
        elif len(self._reads) < READS_MAX:
            going = self._reads[tenant] = asyncio.Event()
            try:
                await self._read(tenant)
            finally:
                del self._reads[tenant]
                going.set()

    async def _read(self, tenant: NodeKey) -> None:
        """What cannot be read now is left as it was."""
        now = self._clock.now()
        try:
            async with asyncio.timeout(READ_SEC):
                found = await self._directory.search(zone_topic(tenant))
            self._keep(tenant, self._newest(tenant, found), now)
        except (Unavailable, TimeoutError) as error:
            log.info("naming.unread", reason=str(error) or "the market did not answer in time")
            if (known := self._known.get(tenant)) is not None:
                self._known[tenant] = known._replace(until=after(now, NEGATIVE))

    def _newest(self, tenant: NodeKey, blobs: Sequence[bytes]) -> Zone:
        best, zone = -1, dict[str, tuple[dns.Record, ...]]()
        for blob in blobs:
            try:
                record = open_record(blob, self._verify, self._clock.now())
                if record.key == tenant and isinstance(record.body, ZoneBody) and record.seq > best:
                    zone, best = dict(read_zone(tenant, record.body.payload)), record.seq
            except PeerError as error:
                log.info("naming.bad-zone", code=error.code)
        return zone

    def _keep(self, tenant: NodeKey, zone: Zone, now: Instant) -> None:
        self._zones[tenant] = zone
        self._known.pop(tenant, None)
        fresh = SOON if self._lags(tenant, zone) else FRESH if zone else NEGATIVE
        self._known[tenant] = Known(zone, after(now, fresh))
        while len(self._known) > ZONES_MAX:
            gone, _ = self._known.popitem(last=False)
            self._zones.pop(gone, None)

    def _lags(self, tenant: NodeKey, zone: Zone) -> bool:
        """Whether a deployment that is served here, too, has more gateways than *zone* tells of."""
        return any(
            document.tenant == tenant
            and len(document.gateways) > sum(x.kind in (dns.A, dns.AAAA) for x in _told(zone, document))
            for document in self._published.values()
        )

    async def _keep_probing(self) -> None:
        """The other gateways of those whom we serve."""
        while True:
            others = list(self._others())[:PROBED_MAX]
            up = await asyncio.gather(*(self._probe(_text(each)) for each in others))
            self._dead = {each for each, is_up in zip(others, up, strict=True) if not is_up}
            await asyncio.sleep(PROBE_SEC)

    def _others(self) -> set[Address]:
        return {
            (record.kind, record.data)
            for document in self._published.values()
            for records in self._zones.get(document.tenant, {}).values()
            for record in records
            if record.kind in (dns.A, dns.AAAA) and (record.kind, record.data) not in self._self.addresses
        }


def _told(zone: Zone, document: Document) -> Sequence[dns.Record]:
    return zone.get(app_label(document.name), ())


def _written(query: dns.Query, answer: Answer, room: int) -> bytes:
    return dns.write_response(query, answer.code, answer.answers, answer.authorities, room)


def _text(address: Address) -> str:
    return str(ipaddress.ip_address(address[1]))
