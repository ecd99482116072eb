"""Kademlia without I/O: who is near whom, and one lookup as a machine. Spec: docs/spec/03-dht.md.

Everything takes ``now`` (any clock in ns, the same one in each call). Differences from the paper (Maymounkov & Mazieres
2002): ids may be bound to addresses, a place near an id is limited per network, a silent peer stops counting after
``SOFT`` instead of its timeout, a place is a region and not only its 16 nearest, and a liar's hearsay is dropped.
"""

from __future__ import annotations

import hashlib
from bisect import insort
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from typing import NamedTuple

import msgspec

from dockage.domain.identity import NodeKey
from dockage.domain.units import HOUR, MILLISECOND, Duration, Instant

K = 16
"""Nodes in a bucket, contacts in an answer, copies of a record."""
ALPHA = 4
"""Questions of one lookup under way at once."""
PER_NETWORK = 2
"""Nodes of one /24 (IPv6: /48) in a bucket and among the closest, where ids are bound to addresses."""
SOFT = Duration(300 * MILLISECOND)
QUERIES_MAX = 128
SEEN_MAX = 512
REGION_MAX = 4 * K
"""Nodes that one place has at most, however many crowd around it."""
DENSE = 10
"""Of the K expected within a region so many are known of at least, or the lookup was led astray and goes on: a third
that names only its own looks three times as thin as the market (98 % of such are noticed, 4 % of others mistaken)."""
STRIKES = 3
"""Silent or lying contacts that one node may name in one lookup before the rest of its hearsay is dropped."""
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


@lru_cache(1 << 16)
def _parse(address: str) -> IPv4Address | IPv6Address | None:
    host, _, port = address.rpartition(":")
    try:
        ip = ip_address(host.removeprefix("[").removesuffix("]"))
        usable = len(address) <= 64 and 0 < int(port) < 1 << 16 and not (ip.is_multicast or ip.is_unspecified)
    except ValueError:
        return None
    return ip if usable else None


@lru_cache(1 << 16)
def _is_global(address: str) -> bool:
    ip = _parse(address)
    return ip is not None and ip.is_global


@lru_cache(1 << 16)
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
        return self.number(contact).to_bytes(32, "big")

    def number(self, contact: Contact) -> int:
        """The id, as distances are reckoned."""
        if not self.bound:
            return _number(contact.key)
        return _bound_number(contact.address, contact.key[31] % 8)

    def network(self, contact: Contact) -> bytes:
        """What PER_NETWORK counts; unbound, each node is its own."""
        return network_of(contact.address) if self.bound else contact.key

    def admits(self, contact: Contact) -> bool:
        return _is_global(contact.address) and contact.is_sane if self.bound else contact.is_sane

    def confirms(self, contact: Contact, seen: str) -> bool:
        """Whether the path's address *seen* agrees with the id that the contact claims."""
        return not self.bound or (network_of(seen) != b"" and network_of(seen) == network_of(contact.address))


@lru_cache(1 << 16)
def _number(source: bytes) -> int:
    return int.from_bytes(hashlib.sha256(b"dockage/1/id\0" + source).digest(), "big")


@lru_cache(1 << 16)
def _bound_number(address: str, few: int) -> int:
    """*few*: several nodes behind one address need not share an id."""
    return _number(network_of(address) + bytes([few]))


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
    goal = int.from_bytes(target, "big")
    crowd: Counter[bytes] = Counter()
    found: list[Contact] = []
    for contact in sorted(contacts, key=lambda c: (space.number(c) ^ goal, c.key)):
        crowd[space.network(contact)] += 1
        if crowd[space.network(contact)] <= PER_NETWORK:
            found.append(contact)
    return found[:count]


class Lookup:
    """One iterative search for the nodes closest to *target*: the *width* closest, and all within *radius* of it.

    The driver asks ``next`` for contacts to question, reports ``answered`` or ``failed`` for each, and calls
    ``next`` again after each report or after ``SOFT``, until ``is_done``. A question that is older than SOFT no
    longer holds the lookup up; its answer is still welcome. *expected* is the distance within which K nodes are to be
    expected anywhere, 0 if not known."""

    def __init__(
        self,
        target: bytes,
        start: Iterable[Contact],
        space: Space,
        avoid: Callable[[NodeKey], bool] = lambda _: False,
        *,
        width: int = K,
        radius: int = 0,
        expected: int = 0,
    ) -> None:
        self._target, self._space, self._avoid = int.from_bytes(target, "big"), space, avoid
        self._width, self._radius, self._expected = width, radius, expected
        self._seen: dict[NodeKey, Contact] = {}
        self._order: list[tuple[int, NodeKey]] = []
        self._asked: dict[NodeKey, Instant] = {}
        self._pending: set[NodeKey] = set()
        self._answered: set[NodeKey] = set()
        self._failed: set[NodeKey] = set()
        self._teller: dict[NodeKey, NodeKey] = {}
        """Who named a contact first. Those that we began with nobody named."""
        self._strikes: Counter[NodeKey] = Counter()
        for contact in start:
            self._see(contact)

    def next(self, now: Instant) -> list[Contact]:
        """Contacts to question now. May be empty while answers are under way."""
        slow = {key for key in self._pending if now - self._asked[key] >= SOFT}
        room = min(ALPHA - len(self._pending) + len(slow), QUERIES_MAX - len(self._asked))
        if room <= 0:
            return []
        without = self._failed | slow
        chosen = list(islice(self._unasked(without, self._width), room))
        if not chosen and len(slow) == len(self._pending) and self._is_thin():
            chosen = list(islice(self._unasked(without, REGION_MAX), room))
        for contact in chosen:
            self.ask(contact, now)
        return chosen

    def ask(self, contact: Contact, now: Instant) -> None:
        """*contact* is questioned, whether or not it is its turn."""
        self._see(contact)
        self._asked[contact.key] = now
        self._pending.add(contact.key)

    def answered(self, key: NodeKey, contacts: Iterable[Contact], most: int = K) -> None:
        self._pending.discard(key)
        self._answered.add(key)
        for contact in list(contacts)[:most]:
            self._see(contact, key)

    def failed(self, key: NodeKey) -> None:
        self._pending.discard(key)
        self._answered.discard(key)
        self._failed.add(key)
        if key in self._teller:
            self._strikes[self._teller[key]] += 1

    def is_done(self, now: Instant) -> bool:
        """After ``next`` returned nothing: no prompt answer can change the outcome any more. While nobody has
        answered at all the slow ones are waited for, until they ``failed``: on a slow line there are no others."""
        if not self._answered and self._pending:
            return False
        return all(now - self._asked[key] >= SOFT for key in self._pending)

    def closest(self) -> list[Contact]:
        """The closest that answered: *width*, and more where more lie within *radius*."""
        return list(self._near(self._seen.keys() - self._answered, self._width, self._radius))

    def near(self, count: int, radius: int) -> list[Contact]:
        """Of all whom we were told of, alive or not, the *count* closest and all within *radius*."""
        return list(self._near(self._failed, count, radius))

    def widen(self, width: int, radius: int) -> None:
        """Not done before so many have answered."""
        self._width, self._radius = width, radius

    def has_asked(self, key: NodeKey) -> bool:
        return key in self._asked

    @property
    def has_answers(self) -> bool:
        return bool(self._answered)

    @property
    def questions(self) -> int:
        return len(self._asked)

    def distances(self) -> list[int]:
        """Of ``closest``."""
        return [self._space.number(contact) ^ self._target for contact in self.closest()]

    def _unasked(self, without: Collection[NodeKey], width: int) -> Iterator[Contact]:
        return (c for c in self._near(without, width, self._radius) if c.key not in self._asked)

    def _is_thin(self) -> bool:
        """Whether fewer are known of around the target than live around any id: somebody leaves the others out."""
        around = self._near(self._failed, 0, self._expected) if self._expected else ()
        return bool(self._expected) and sum(1 for _ in around) < DENSE

    def _near(self, without: Collection[NodeKey], width: int, radius: int) -> Iterator[Contact]:
        crowd: dict[bytes, int] = {}
        count = 0
        for gap, key in self._order:
            if (count >= width and gap > radius) or count >= REGION_MAX:
                return
            if key in without or (self._strikes and self._is_lie(key)):
                continue
            contact = self._seen[key]
            if self._space.bound:
                network = network_of(contact.address)
                crowd[network] = held = crowd.get(network, 0) + 1
                if held > PER_NETWORK:
                    continue
            count += 1
            yield contact

    def _is_lie(self, key: NodeKey) -> bool:
        """Nobody but a proven inventor of contacts named it, and it has not answered."""
        if key in self._answered:
            return False
        return self._strikes[self._teller.get(key, key)] >= STRIKES

    def _see(self, contact: Contact, teller: NodeKey | None = None) -> None:
        key = contact.key
        if key in self._seen:
            if teller is not None and self._strikes and self._is_lie(key):
                self._teller[key] = teller  # somebody else vouches for it
            return
        if len(self._seen) >= SEEN_MAX or self._avoid(key) or not self._space.admits(contact):
            return
        self._seen[key] = contact
        if teller is not None:
            self._teller[key] = teller
        insort(self._order, (self._space.number(contact) ^ self._target, key))
