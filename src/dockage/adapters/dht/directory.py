"""KademliaDirectory: the Directory port over a Kademlia of market nodes.

Each node may search and publish; only *servers* (directly reachable) hold records and are contacts of others. The
daemon hands incoming streams of the kind to ``serve_stream`` and keeps ``run`` going. Nothing is believed: records
are opened by each holder and again by each reader.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import chain, count
from random import Random

from dockage.domain.errors import PeerError, Unavailable, UsageError
from dockage.domain.identity import NodeKey
from dockage.domain.units import Instant
from dockage.ports import Address, Clock, Stream
from dockage.protocol.dht_messages import Find, Get, Listing, Put, Request, Taken
from dockage.protocol.kademlia import Contact, Lookup, RoutingTable, Space, places
from dockage.protocol.record_store import RecordStore
from dockage.protocol.records import Verify, check_place, open_record, tag

from .asker import Asker, Learn, OpenStream, Seen, drive, together
from .limits import DEFAULT, Limits
from .server import Server

_SKEW = ("record.expired", "record.horizon")
"""Two honest clocks may differ on these: no reason to blame the holder."""


class KademliaDirectory:
    """*open_stream* has already written the stream's opening frame when it returns. *address* is what our link
    says of itself; *seen* the ``ip:port`` that a connected peer uses ("" if relayed), needed only if *bound*: in
    the public market, where ids come from addresses. *rand* chooses what to refresh."""

    def __init__(
        self,
        *,
        node: NodeKey,
        verify: Verify,
        clock: Clock,
        open_stream: OpenStream,
        learn: Learn,
        address: Callable[[], Address],
        rand: Random,
        server: bool,
        bound: bool = False,
        seen: Seen = lambda _: "",
        limits: Limits = DEFAULT,
    ) -> None:
        self._node, self._verify, self._clock, self._rand = node, verify, clock, rand
        self._address, self._seen, self._is_server, self._limits = address, seen, server, limits
        self._space = Space(bound)
        self._table = RoutingTable(node, self._own_id(), self._space)
        self._store = RecordStore(verify)
        self._asker = Asker(self._table, self._space, open_stream, learn, seen, limits)
        self._server = Server(self._store, self._table, clock, self._welcome, limits)
        self._seeds: dict[str, dict[NodeKey, Contact]] = {}

    # -- the port --------------------------------------------------------------------------------------
    async def publish(self, topic: bytes, record: bytes) -> int:
        """Also raises UsageError("record.*") for a record that no node would take."""
        now = self._clock.now()
        try:
            opened = open_record(record, self._verify, now)
            check_place(opened, topic)
        except PeerError as error:
            raise UsageError(error.code, f"cannot publish: {error.message}") from None
        taken = int(self._is_server and self._store.put(topic, record, now))
        holders: dict[NodeKey, Contact] = {}
        # At midnight the places move: what is published before must be found after.
        targets = {*places(topic, now), *places(topic, opened.expires)}
        await together([self._locate(target, holders) for target in targets], self._limits.lookup_sec)
        accepted: list[NodeKey] = []
        puts = [self._put(holder, topic, record, accepted) for holder in holders.values()]
        await together(puts, self._limits.lookup_sec)
        taken += len(accepted)
        if not taken:
            raise Unavailable(
                "market.unreachable", "no market node took the record; are any seeds configured?"
            )
        return taken

    async def search(self, topic: bytes) -> Sequence[bytes]:
        """At most 4096 records, in order of publisher. Raises Unavailable("market.unreachable")."""
        now = self._clock.now()
        found = RecordStore(self._verify)
        if self._is_server:
            for blob in self._store.page(topic, b"", frozenset(), now, 1 << 30).records:
                found.put(topic, blob, now)
        if not await self._collect_all(topic, found, now) and not self._is_server:
            await (
                self._enter()
            )  # all were given up at once, as after a suspension: the seeds know who is there
            if not await self._collect_all(topic, found, now):
                raise Unavailable("market.unreachable", "no market node answers; are any seeds configured?")
        return found.page(topic, b"", frozenset(), now, 1 << 30).records

    # -- the daemon's side -----------------------------------------------------------------------------
    async def serve_stream(self, peer: NodeKey, stream: Stream) -> None:
        """One request of *peer* on *stream*, whose opening frame was read already."""
        if self._is_server:
            await self._server.serve(peer, stream)
        else:
            stream.abort()

    async def bootstrap(self, contacts: Sequence[tuple[NodeKey, Address]], source: str = "config") -> int:
        """Enter the market through any of *contacts*, remembered as seeds of *source*. Returns how many nodes we know
        now; 0 is no error: ``run`` tries again."""
        seeds = self._seeds.setdefault(source, {})
        for key, address in contacts:
            contact = self._contact(key, address)
            if contact is not None and key != self._node:
                seeds.pop(key, None)
                seeds[key] = contact
                if len(seeds) > self._limits.seeds:
                    del seeds[next(iter(seeds))]
        await self._enter(seeds.values())
        return len(self._table)

    async def run(self) -> None:
        """Forget what is over and keep the routing table fresh, until cancelled."""
        every = max(1, round(self._limits.refresh_sec / self._limits.expire_sec))
        for round_ in count(1):
            await asyncio.sleep(self._limits.expire_sec)
            self._store.expire(self._clock.now())
            if not len(self._table):
                await self._enter()
            elif round_ % every == 0:
                await self._refresh()

    def contacts(self) -> list[tuple[NodeKey, Address]]:
        """Live market nodes, to be kept as seeds for the next start."""
        return [(c.key, Address(c.relay, (c.address,))) for c in self._table.all()]

    def holds(self, topic: bytes) -> Sequence[bytes]:
        """The records under *topic* in our own store: for status and tests."""
        return self._store.page(topic, b"", frozenset(), self._clock.now(), 1 << 30).records

    @property
    def refused(self) -> Counter[str]:
        """What peers sent that was not taken, by error code."""
        return self._asker.refused + self._server.refused

    # -- ourselves -------------------------------------------------------------------------------------
    def _contact(self, key: NodeKey, address: Address) -> Contact | None:
        made = (Contact(key, direct, address.relay) for direct in address.direct)
        return next((contact for contact in made if self._space.admits(contact)), None)

    def _me(self) -> Contact | None:
        return self._contact(self._node, self._address()) if self._is_server else None

    def _own_id(self) -> bytes:
        me = self._me()
        return self._space.id(me) if me else Space(bound=False).id(Contact(self._node, ""))

    def _welcome(self, peer: NodeKey, request: Request) -> None:
        """A server that asks is a contact: its key is proven; its address only if the path agrees."""
        me = request.me
        if me is None:
            return
        if me.key != peer:
            raise PeerError("dht.impostor", "a request in another node's name")
        if self._space.confirms(me, self._seen(peer)):
            self._table.add(me)

    # -- lookups ---------------------------------------------------------------------------------------
    async def _enter(self, seeds: Iterable[Contact] | None = None) -> None:
        """Through *seeds*, or all that we were ever told of."""
        self._table.move(self._own_id())
        found: list[Contact] = []
        request = Find(self._me(), self._own_id())

        async def greet(seed: Contact) -> None:
            if await self._asker.ask(seed, request, Listing):
                found.append(seed)

        told = seeds if seeds is not None else chain.from_iterable(x.values() for x in self._seeds.values())
        await together([greet(seed) for seed in told], self._limits.lookup_sec)
        if found:
            await self._refresh()

    async def _refresh(self) -> None:
        self._table.move(self._own_id())
        targets = [self._own_id(), self._rand.randbytes(32), self._rand.randbytes(32)]
        await together([self._locate(target, {}) for target in targets], self._limits.lookup_sec)

    def _lookup(self, target: bytes) -> Lookup:
        return Lookup(target, self._table.closest(target), self._space, self._avoids)

    def _avoids(self, key: NodeKey) -> bool:
        return key == self._node or self._asker.avoids(key)

    async def _locate(self, target: bytes, found: dict[NodeKey, Contact]) -> None:
        lookup, request = self._lookup(target), Find(self._me(), target)
        await drive(lookup, lambda contact: self._asker.ask(contact, request, Listing))
        found.update((contact.key, contact) for contact in lookup.closest())

    async def _put(self, holder: Contact, topic: bytes, record: bytes, accepted: list[NodeKey]) -> None:
        answer = await self._asker.ask(holder, Put(self._me(), topic, (record,)), Taken)
        if answer is not None and answer.taken == (True,):
            accepted.append(holder.key)

    async def _collect_all(self, topic: bytes, found: RecordStore, now: Instant) -> bool:
        """Whether anybody answered."""
        answered: set[NodeKey] = set()
        work = [self._collect(place, topic, found, answered) for place in places(topic, now)]
        await together(work, self._limits.lookup_sec)
        return bool(answered)

    async def _collect(self, place: bytes, topic: bytes, found: RecordStore, answered: set[NodeKey]) -> None:
        """Look up *place*, taking along the records under *topic* of every node on the way."""
        lookup, me = self._lookup(place), self._me()
        bad: set[bytes] = set()

        async def ask(contact: Contact, after: bytes = b"") -> Listing | None:
            known = b"".join(record.tag for record in found)
            return await self._asker.ask(contact, Get(me, place, topic, after, known), Listing)

        async def read_on(contact: Contact, page: Listing) -> None:
            answered.add(contact.key)
            for _ in range(self._limits.pages):
                if not self._file(contact, topic, page.records, found, bad) or not page.more:
                    return
                following = await ask(contact, page.last)
                if following is None or following.last <= page.last:
                    return
                page = following

        async def rest(contact: Contact, page: Listing) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.paging_sec):
                    await read_on(contact, page)

        await drive(lookup, ask, rest)

    def _file(
        self, contact: Contact, topic: bytes, blobs: Sequence[bytes], found: RecordStore, bad: set[bytes]
    ) -> bool:
        """False once the holder showed a record that no honest one would have kept: it is not read on."""
        now = self._clock.now()
        have = {record.tag for record in found} | bad
        for blob in blobs:
            if tag(blob) in have:
                continue  # several nodes hold the same: opening costs far more than a hash
            try:
                found.put(topic, blob, now)
            except PeerError as error:
                if error.code not in _SKEW:
                    self._asker.blame(contact.key, error.code)
                    return False
                bad.add(tag(blob))
        return True
