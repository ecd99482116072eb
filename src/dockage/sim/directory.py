"""A market of thousands of directory nodes: the real ``DhtNode`` in each, churn, and hostile ones among them.

Counterpart: adapters/dht, which runs the same machines on real streams. Questions take their time and silent peers
theirs; bytes are not encoded, which tests/market does. ``Plan`` says how many of what, ``Web`` puts it together;
``directory_trials`` measures, ``gangs`` attack.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from dockage.domain.errors import PeerError
from dockage.domain.identity import NodeKey
from dockage.domain.units import HOUR, MILLISECOND, SECOND, Duration
from dockage.protocol.dht_messages import Answer, Find, Request
from dockage.protocol.dht_node import DhtNode, Upkeep
from dockage.protocol.dht_operations import Operation, Question
from dockage.protocol.kademlia import SOFT, Contact, Space
from dockage.protocol.routing_table import Density

from .census import Census
from .world import World

MTBF = Duration(92 * HOUR)
"""Of a home machine: Salad's own test of 2025, 182 reallocations of 100 instances in 7 days."""
TIMEOUT = 2 * SECOND
SEEDS = 8
"""That a newcomer knows, each as likely hostile as any node: where all are (three of three: 2.7 % at 30 %), no
table and no look-up can help. Mainline shows up to 64 of them, a book of contacts has 32."""
LOOK = 30 * SECOND
"""From one bucket of a newcomer to the next (``adapters/dht/limits.py``)."""
Op = TypeVar("Op", bound=Operation)


class Plan(NamedTuple):
    nodes: int = 10_000
    hostile: float = 0.0
    mtbf: int = MTBF
    """0: nobody ever leaves. Who leaves comes back as somebody else, elsewhere. Hostile nodes stay."""
    space: Space = Space(bound=True)
    upkeep: Upkeep = Upkeep(rate=1 << 20, burst=1 << 20, refresh=Duration(12 * HOUR), refill=HOUR)
    """A twelfth as often as real nodes: so that days of ten thousand fit into minutes, and figures err to the bad."""
    looks: int = 16
    """At upkeep, within ``upkeep.refresh``."""
    region: bool = True
    """A place is a region. False: only its 16 closest, as in a plain Kademlia, for comparison."""
    spam: int = 0
    """Honest nodes that each hostile one calls an hour, to get into their tables."""
    least: int = 10 * MILLISECOND
    most: int = 200 * MILLISECOND


class Peer(Protocol):
    contact: Contact

    def answer(self, web: Web, asker: NodeKey, seen: str, request: Request) -> Answer | None:
        """None: silence."""


class Blind(Density):
    def seen(self, distances: list[int]) -> None:
        """Sees nothing."""


class Honest:
    __slots__ = ("contact", "node")

    def __init__(self, web: Web, contact: Contact) -> None:
        self.contact = contact
        plan = web.plan
        self.node = DhtNode(
            contact.key, plan.space, trusting, web.world.random, server=True, upkeep=plan.upkeep
        )
        self.node.move(contact)
        if not plan.region:
            self.node.density = Blind()

    def answer(self, web: Web, asker: NodeKey, seen: str, request: Request) -> Answer | None:
        try:
            return self.node.serve(asker, request, seen, web.world.now, web.world.now)
        except PeerError:
            return None


class Web:
    def __init__(self, seed: int, plan: Plan, villain: Callable[[Web, Contact], Peer] | None = None) -> None:
        self.world, self.plan, self._villain = World(seed), plan, villain
        self.peers: dict[NodeKey, Peer] = {}
        self.honest: list[Honest] = []
        self.hostile: list[Peer] = []
        self.questions = 0
        self._gang: Census | None = None
        self._populate()

    # -- who is there ----------------------------------------------------------------------------------
    def contact(self) -> Contact:
        """A new node in a network of its own, anywhere."""
        rand = self.world.random
        a, b, c, d = rand.randrange(11, 100), rand.randrange(256), rand.randrange(256), rand.randrange(1, 255)
        return Contact(NodeKey(rand.randbytes(32)), f"{a}.{b}.{c}.{d}:4711")

    def add(self, peer: Peer) -> Peer:
        self.peers[peer.contact.key] = peer
        if isinstance(peer, Honest):
            self.honest.append(peer)
        else:
            self.hostile.append(peer)
        return peer

    def _populate(self) -> None:
        """Everybody knows a fair sample, as after a long life without malice; what malice makes of it is the run's."""
        villains = int(self.plan.nodes * self.plan.hostile) if self._villain else 0
        for number in range(self.plan.nodes):
            contact = self.contact()
            if number < villains and self._villain:
                self.add(self._villain(self, contact))
            else:
                self.add(Honest(self, contact))
        self.census = Census(self.plan.space, self.peers.values(), self.world.random)
        for each in self.honest:
            self.census.acquaint(each.node)
            self._keep_up(each)
            self._live(each)
        for villain in self.hostile if self.plan.spam else ():
            self.world.every(HOUR, partial(self._spam, villain), first=self._within(HOUR))

    def _live(self, peer: Honest) -> None:
        if self.plan.mtbf:
            lifetime = self.world.random.expovariate(1 / self.plan.mtbf)
            self.world.later(int(lifetime), partial(self._replace, peer))

    def _replace(self, peer: Honest) -> None:
        del self.peers[peer.contact.key]
        self.honest.remove(peer)
        self.join(Honest(self, self.contact()))

    def join(self, peer: Honest) -> None:
        """As the adapter's ``bootstrap``."""
        seeds = [self.world.random.choice(list(self.peers.values())).contact for _ in range(SEEDS)]
        self.add(peer)
        self._live(peer)

        def entered(_: Operation) -> None:
            for order in (255, 256):
                self._refresh(peer, order)
            self._settle(peer)

        self.run(peer, peer.node.enter(seeds, self.world.now), entered)

    def is_there(self, peer: Peer) -> bool:
        return peer.contact.key in self.peers

    # -- what they do ----------------------------------------------------------------------------------
    def run(self, asker: Honest, operation: Op, then: Callable[[Op], None] | None = None) -> None:
        Run(self, asker, operation, then)

    def _settle(self, peer: Honest) -> None:
        """A newcomer fills its table as fast as a real one."""
        if self.is_there(peer) and (order := peer.node.due(self.world.now)) is not None:
            self._refresh(peer, order)
            self.world.later(LOOK, partial(self._settle, peer))
        else:
            self._keep_up(peer)

    def _keep_up(self, peer: Honest) -> None:
        self.world.later(
            self._within(2 * self.plan.upkeep.refresh // self.plan.looks), partial(self._upkeep, peer)
        )

    def _upkeep(self, peer: Honest) -> None:
        if not self.is_there(peer):
            return
        node, now = peer.node, self.world.now
        node.store.expire(now)
        order = node.due(now)
        if order is not None:
            self._refresh(peer, order)
        while (puts := node.hand_over(now)) is not None:
            self.run(peer, puts)
        self._keep_up(peer)

    def _refresh(self, peer: Honest, order: int) -> None:
        walk = peer.node.refresh(order, self.world.now)
        self.run(peer, walk, lambda walk: peer.node.refreshed(order, walk, self.world.now))

    @property
    def gang(self) -> Census:
        """The hostile ones, who all know each other."""
        if self._gang is None or len(self._gang) != len(self.hostile):
            self._gang = Census(self.plan.space, self.hostile, self.world.random)
        return self._gang

    def _spam(self, villain: Peer) -> None:
        """It calls strangers, to be in their tables."""
        for _ in range(self.plan.spam):
            self.call(villain.contact, self.world.random.choice(self.honest))

    def call(self, contact: Contact, honest: Honest) -> None:
        """*contact* asks something, to be known."""
        honest.answer(self, contact.key, contact.address, Find(contact, self.plan.space.id(contact)))

    def _within(self, time: int) -> int:
        return int(self.world.random.random() * time)


class Run:
    """One operation of one node, question by question."""

    __slots__ = ("_asker", "_is_over", "_operation", "_slow", "_then", "_web")

    def __init__(self, web: Web, asker: Honest, operation: Op, then: Callable[[Op], None] | None) -> None:
        self._web, self._asker, self._operation = web, asker, operation
        self._then: Callable[[Operation], None] | None = then  # type: ignore[assignment]
        self._is_over = False
        self._slow: list[Question] = []
        """Not answered within SOFT."""
        self._go_on()

    def _go_on(self) -> None:
        if self._is_over:
            return
        operation, now = self._operation, self._web.world.now
        for question in operation.next(now):
            self._ask(question)
        if operation.is_done(now):
            self._is_over = True
            for question in self._slow:
                self._asker.node.unheard(question)
            if self._then is not None and self._web.is_there(self._asker):
                self._then(operation)

    def _ask(self, question: Question) -> None:
        web, asker = self._web, self._asker.contact
        web.questions += 1
        world, plan = web.world, web.plan
        peer = web.peers.get(question.contact.key)
        answer = None
        if peer is not None and peer.contact.address == question.contact.address:
            answer = peer.answer(web, asker.key, asker.address, question.request)
        if answer is None:
            world.later(SOFT, partial(self._waited, question))
            world.later(TIMEOUT, partial(self._failed, question))
        else:
            delay = plan.least + int(world.random.random() * (plan.most - plan.least))
            world.later(delay, partial(self._answered, question, answer))

    def _waited(self, question: Question) -> None:
        self._slow.append(question)
        self._go_on()

    def _failed(self, question: Question) -> None:
        now = self._web.world.now
        if self._is_over:
            return
        self._asker.node.silent(question, now)
        self._slow.remove(question)
        self._operation.failed(question, now)
        self._go_on()

    def _answered(self, question: Question, answer: Answer) -> None:
        now = self._web.world.now
        if self._is_over:
            return
        if self._asker.node.took(question, answer, question.contact.address, now):
            self._operation.answered(question, answer, now)
        else:
            self._operation.failed(question, now)
        self._go_on()


def trusting(key: NodeKey, message: bytes, signature: bytes) -> bool:
    """Signatures are tested in tests/market; here they would only cost time."""
    return True
