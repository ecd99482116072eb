"""Hostile nodes of the directory, and the sums that an attacker does to sit around a topic.

They keep no rules but those that honest nodes check: an id must follow from the address that they really answer from.
All of a gang know each other and everything about the world.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterator

from dockage.domain.identity import NodeKey
from dockage.protocol.dht_messages import Answer, Best, Listing, Pick, Put, Request, Taken
from dockage.protocol.kademlia import Contact, K, network_of, places

from .directory import Honest, Peer, Web


class Silent:
    """Takes questions and says nothing."""

    def __init__(self, web: Web, contact: Contact) -> None:
        self.contact = contact

    def answer(self, web: Web, asker: NodeKey, seen: str, request: Request) -> Answer | None:
        return None


class Denier(Silent):
    """Claims to store, holds nothing, and names only its own, the closest to what is looked for."""

    def answer(self, web: Web, asker: NodeKey, seen: str, request: Request) -> Answer | None:
        if isinstance(request, Put):
            return Taken(tuple(True for _ in request.records))
        if isinstance(request, Pick):
            near = dict.fromkeys(friend for goal in request.targets for friend in self.friends(web, goal))
            return Best(tuple(near), (), False, 0, 0)
        return Listing(tuple(self.friends(web, request.target)))

    def friends(self, web: Web, target: bytes) -> list[Contact]:
        return web.gang.closest(int.from_bytes(target, "big"))


class Crowd(Denier):
    """Sits around one topic, and shows another part of the crowd each time, so that all of it comes before its prey."""

    def friends(self, web: Web, target: bytes) -> list[Contact]:
        near = web.gang.closest(int.from_bytes(target, "big"), 8 * K)
        return web.world.random.sample(near, min(K, len(near)))


class Poisoner(Denier):
    """Names contacts that do not exist, closer than anybody who does: addresses cost nothing to claim."""

    def friends(self, web: Web, target: bytes) -> list[Contact]:
        goal = int.from_bytes(target, "big")
        made = [web.contact() for _ in range(4 * K)]
        made.sort(key=lambda contact: web.plan.space.number(contact) ^ goal)
        return made[: K // 2] + super().friends(web, target)[: K // 2]


KINDS: dict[str, Callable[[Web, Contact], Peer]] = {"silent": Silent, "deny": Denier, "poison": Poisoner}


KEYS = 30
"""Where ids are unbound an attacker mines so many keys for each node there is: some seconds of work."""
LOUD = 64
"""Honest nodes around a place that each attacker calls."""


class Pool:
    """Ids that an attacker may choose from: those of all networks in which it could rent addresses; in a market with
    unbound ids those of keys that it mines."""

    def __init__(self, web: Web, networks: int) -> None:
        self._rand, bound = web.world.random, web.plan.space.bound
        count = networks if bound else KEYS * len(web.honest)
        made = (web.contact() for _ in range(count))
        entries = (each for contact in made for each in self._ids(contact, bound))
        self._ids_sorted = sorted(entries, key=lambda entry: entry[0])
        self._numbers = [number for number, _ in self._ids_sorted]

    @staticmethod
    def _ids(contact: Contact, bound: bool) -> Iterator[tuple[int, Contact]]:
        key = contact.key
        for few in range(8) if bound else (key[31],):
            each = Contact(NodeKey(key[:30] + bytes([few, few])), contact.address) if bound else contact
            source = network_of(each.address) + bytes([few]) if bound else key
            digest = hashlib.sha256(b"dockage/1/id\0" + source).digest()
            yield int.from_bytes(digest, "big"), each

    def closest(self, goal: int, count: int) -> list[Contact]:
        at = bisect_left(self._numbers, goal)
        window = self._ids_sorted[max(0, at - 4 * count) : at + 4 * count]
        return [contact for _, contact in sorted(window, key=lambda entry: entry[0] ^ goal)[:count]]


def surround(web: Web, pool: Pool, topic: bytes, each: int) -> None:
    """Put the *each* closest of *pool* around every place of *topic*; all make themselves known to the honest ones
    there, so that whoever comes near is shown to them."""
    for place in places(topic, web.world.now):
        goal = int.from_bytes(place, "big")
        near = web.census.closest(goal, LOUD)
        honest = [peer for c in near if isinstance(peer := web.peers.get(c.key), Honest)]
        for contact in pool.closest(goal, each):
            villain = web.add(Crowd(web, contact))
            for neighbour in honest:
                web.call(villain.contact, neighbour)
