"""Kademlia without I/O: who is near whom, the routing table, and one lookup as a machine. Spec: docs/spec/03-dht.md.

Everything takes ``now`` (any clock in ns, the same one in each call). Counterparts: adapters/dht moves the bytes,
the simulator the events. Differences from the paper (Maymounkov & Mazieres 2002): ids may be bound to addresses,
a place near an id is limited per network, and a silent peer stops counting after ``SOFT`` instead of its timeout.
"""

from __future__ import annotations

import hashlib
from bisect import insort
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

import msgspec

from dockage.domain.identity import NodeKey
from dockage.domain.units import HOUR, MILLISECOND, MINUTE, Duration, Instant

K = 16
"""Nodes in a bucket, contacts in an answer, copies of a record."""
ALPHA = 4
"""Questions of one lookup under way at once."""
PER_NETWORK = 2
"""Nodes of one /24 (IPv6: /48) in a bucket and among the closest, where ids are bound to addresses."""
SOFT = Duration(300 * MILLISECOND)
DEAD_FOR = Duration(MINUTE)
DEAD_MAX = 1024
QUERIES_MAX = 128
SEEN_MAX = 512
SALTS = 3
"""A record lies near this many places: whoever wants to hide it must sit around all of them."""
DAY = Duration(24 * HOUR)


class Contact(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A market node. Nodes that only ask (behind a NAT, tenants) are never contacts."""

    key: NodeKey
    address: str
    """``ip:port``."""
    relay: str = ""

    @property
    def is_sane(self) -> bool:
        return len(self.key) == 32 and len(self.relay) <= 255 and _parse(self.address) is not None


@lru_cache(4096)
def _parse(address: str) -> IPv4Address | IPv6Address | None:
    host, _, port = address.rpartition(":")
    try:
        ip = ip_address(host.removeprefix("[").removesuffix("]"))
        usable = len(address) <= 64 and 0 < int(port) < 1 << 16 and not (ip.is_multicast or ip.is_unspecified)
    except ValueError:
        return None
    return ip if usable else None


def network_of(address: str) -> bytes:
    """The /24 (IPv4) or /48 (IPv6) of an ``ip:port``; b"" if it is none."""
    ip = _parse(address)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return ip.packed[: 3 if ip.version == 4 else 6] if ip else b""


class Space(NamedTuple):
    """How ids are made. *Bound* (the public market): from the address, so that whoever wants many ids near a topic
    needs addresses in many networks (BEP 42's idea; ids from keys alone were mined around a topic in 0.26 s).
    Unbound (private nets, tests): from the key."""

    bound: bool

    def id(self, contact: Contact) -> bytes:
        if not self.bound:
            return hashlib.sha256(b"dockage/1/id\0" + contact.key).digest()
        few = bytes([contact.key[31] % 8])  # several nodes behind one address need not share an id
        return hashlib.sha256(b"dockage/1/id\0" + network_of(contact.address) + few).digest()

    def network(self, contact: Contact) -> bytes:
        """What PER_NETWORK counts; unbound, each node is its own."""
        return network_of(contact.address) if self.bound else contact.key

    def admits(self, contact: Contact) -> bool:
        ip = _parse(contact.address)
        return contact.is_sane and ip is not None and (ip.is_global or not self.bound)

    def confirms(self, contact: Contact, seen: str) -> bool:
        """Whether the path's address *seen* agrees with the id that the contact claims."""
        return not self.bound or (network_of(seen) != b"" and network_of(seen) == network_of(contact.address))


def distance(a: bytes, b: bytes) -> int:
    return int.from_bytes(a, "big") ^ int.from_bytes(b, "big")


def places(topic: bytes, now: Instant) -> tuple[bytes, ...]:
    """Where *topic* lies today (UTC): the places move each day, mined neighbours do not move along."""
    day = (now // DAY).to_bytes(4, "big")
    return tuple(
        hashlib.sha256(b"dockage/1/place\0" + topic + bytes([salt]) + day).digest() for salt in range(SALTS)
    )


def nearest(target: bytes, contacts: Iterable[Contact], space: Space, count: int = K) -> list[Contact]:
    """The *count* closest, at most PER_NETWORK of one network."""
    return _spread(sorted(contacts, key=lambda c: (distance(space.id(c), target), c.key)), space, count)


def _spread(in_order: Iterable[Contact], space: Space, count: int) -> list[Contact]:
    crowd: dict[bytes, int] = {}
    found: list[Contact] = []
    for contact in in_order:
        network = space.network(contact)
        crowd[network] = crowd.get(network, 0) + 1
        if crowd[network] <= PER_NETWORK:
            found.append(contact)
            if len(found) == count:
                break
    return found


class RoutingTable:
    """Contacts that answered us, K for each order of distance from our own id. Old live ones are preferred: an
    attacker who comes later cannot push them out."""

    def __init__(self, own: NodeKey, own_id: bytes, space: Space) -> None:
        self._own, self._own_id, self._space = own, own_id, space
        self._buckets: dict[int, dict[NodeKey, Contact]] = {}
        self._dead: dict[NodeKey, Instant] = {}

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def all(self) -> list[Contact]:
        return [contact for bucket in self._buckets.values() for contact in bucket.values()]

    def find(self, key: NodeKey) -> Contact | None:
        return next((bucket[key] for bucket in self._buckets.values() if key in bucket), None)

    def closest(self, target: bytes, count: int = K) -> list[Contact]:
        return nearest(target, self.all(), self._space, count)

    def add(self, contact: Contact) -> bool:
        """*contact* is alive: it answered, or called. Whether it has a place now."""
        if contact.key == self._own or not self._space.admits(contact):
            return False
        old = self.find(contact.key)
        if old == contact:
            return True
        if old is not None:
            self._remove(contact.key)  # it moved: with ids bound to addresses, to another bucket perhaps
        self._dead.pop(contact.key, None)
        order = distance(self._space.id(contact), self._own_id).bit_length()
        bucket = self._buckets.setdefault(order, {})
        network = self._space.network(contact)
        neighbours = sum(self._space.network(other) == network for other in bucket.values())
        if len(bucket) >= K or neighbours >= PER_NETWORK:
            return False
        bucket[contact.key] = contact
        return True

    def move(self, own_id: bytes) -> None:
        """Our own address, and with it our id, changed."""
        if own_id != self._own_id:
            contacts, self._buckets, self._own_id = self.all(), {}, own_id
            for contact in contacts:
                self.add(contact)

    def failed(self, key: NodeKey, now: Instant) -> None:
        """It did not answer or lied: out of the table, and not asked again for a while."""
        self._remove(key)
        self._dead.pop(key, None)
        self._dead[key] = Instant(now + DEAD_FOR)
        if len(self._dead) > DEAD_MAX:
            del self._dead[next(iter(self._dead))]

    def is_dead(self, key: NodeKey, now: Instant) -> bool:
        return self._dead.get(key, Instant(0)) > now

    def _remove(self, key: NodeKey) -> None:
        for bucket in self._buckets.values():
            bucket.pop(key, None)


class Lookup:
    """One iterative search for the nodes closest to *target*.

    The driver asks ``next`` for contacts to question, reports ``answered`` or ``failed`` for each, and calls
    ``next`` again after each report or after ``SOFT``, until ``is_done``. A question that is older than SOFT no
    longer holds the lookup up; its answer is still welcome."""

    def __init__(
        self,
        target: bytes,
        start: Iterable[Contact],
        space: Space,
        avoid: Callable[[NodeKey], bool] = lambda _: False,
    ) -> None:
        self._target, self._space, self._avoid = target, space, avoid
        self._seen: dict[NodeKey, Contact] = {}
        self._order: list[tuple[int, NodeKey]] = []
        self._asked: dict[NodeKey, Instant] = {}
        self._pending: set[NodeKey] = set()
        self._answered: set[NodeKey] = set()
        self._failed: set[NodeKey] = set()
        for contact in start:
            self._see(contact)

    def next(self, now: Instant) -> list[Contact]:
        """Contacts to question now. May be empty while answers are under way."""
        slow = {key for key in self._pending if now - self._asked[key] >= SOFT}
        room = min(ALPHA - len(self._pending - slow), QUERIES_MAX - len(self._asked))
        open_to = (self._seen[key] for _, key in self._order if key not in self._failed and key not in slow)
        todo = [c for c in _spread(open_to, self._space, K) if c.key not in self._asked]
        chosen = todo[: max(room, 0)]
        for contact in chosen:
            self._asked[contact.key] = now
            self._pending.add(contact.key)
        return chosen

    def answered(self, key: NodeKey, contacts: Iterable[Contact]) -> None:
        self._pending.discard(key)
        self._answered.add(key)
        for contact in list(contacts)[:K]:
            self._see(contact)

    def failed(self, key: NodeKey) -> None:
        self._pending.discard(key)
        self._answered.discard(key)
        self._failed.add(key)

    def is_done(self, now: Instant) -> bool:
        """After ``next`` returned nothing: no prompt answer can change the outcome any more. While nobody has
        answered at all the slow ones are waited for, until they ``failed``: on a slow line there are no others."""
        if not self._answered and self._pending:
            return False
        return all(now - self._asked[key] >= SOFT for key in self._pending)

    def closest(self) -> list[Contact]:
        """The K closest that answered."""
        in_order = (self._seen[key] for _, key in self._order if key in self._answered)
        return _spread(in_order, self._space, K)

    def _see(self, contact: Contact) -> None:
        if contact.key in self._seen or len(self._seen) >= SEEN_MAX or self._avoid(contact.key):
            return
        if self._space.admits(contact):
            self._seen[contact.key] = contact
            insort(self._order, (distance(self._space.id(contact), self._target), contact.key))
