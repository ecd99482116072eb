"""A whole world from one seed: providers, tenants, their users, the chain, the weather and the accidents.

Reading order: ``Plan`` (how many of what), ``Town`` (puts it together), ``live`` (the busy time) and ``wind_down``
(everybody leaves, and nothing may be left over).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from dockage.domain.identity import NodeKey
from dockage.domain.pricing import PRESETS, Tariff
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, HOUR, MIB, MINUTE, SECOND, Duration, Sat
from dockage.node.policy import ProviderPolicy, TenantPolicy
from dockage.node.provider import offer

from .chain import Chain
from .market import Market
from .network import CALM, ROUGH, Network, Weather
from .node import Around, Node
from .people import User
from .world import World

NO_CREDIT = Sat(0)
COIN = Sat(200_000)
FRIENDS = 3
"""Tenants of a free provider, which serves nobody else."""
BIRTH = 1000
"""Height of the chain at the beginning."""


class Plan(NamedTuple):
    providers: int = 30
    tenants: int = 70
    time: Duration = HOUR
    weather: Weather = ROUGH
    crashes_per_hour: float = 0.5
    """Of each node."""
    down_most: Duration = Duration(3 * MINUTE)
    cuts: int = 3
    """Times in which a tenth of the nodes is cut off for a few minutes."""
    reorganisations: int = 2
    blocks_per_hour: int = 60
    """Faster than the real chain, so that an hour sees more of it."""
    unprepared: float = 0.02
    free_providers: float = 0.2
    """Share of the providers."""
    channel: Sat = Sat(60_000)
    """Capacity of each."""
    expiry_blocks: int = 1500
    meter: Duration = Duration(30 * SECOND)
    """Between two readings of a lease, and between two statements; all patience is in proportion to it."""
    tick: Duration = Duration(10 * SECOND)


PEACE = Plan(
    weather=CALM, crashes_per_hour=0.0, cuts=0, reorganisations=0, unprepared=0.0, free_providers=0.0
)


def tenant_policy(meter: Duration) -> TenantPolicy:
    return TenantPolicy(
        ask_again=Duration(5 * SECOND),
        answer_within=Duration(15 * SECOND),
        open_within=Duration(90 * SECOND),
        end_within=Duration(20 * SECOND),
        silence=Duration(meter * 5 // 2),
        dispute_max=Duration(4 * meter),
        check_every=Duration(20 * meter),
        check_soon=Duration(3 * meter),
        check_limit=Duration(2 * meter),
    )


def provider_policy(
    tariff: Tariff, capacity: Resources, meter: Duration, credit: Sat = NO_CREDIT
) -> ProviderPolicy:
    return ProviderPolicy(
        tariff=tariff,
        capacity=capacity,
        network="" if tariff.is_free else "sim",
        credit_sat=credit,
        tick=meter,
        patience=Duration(meter * 3 // 2),
        grace=Duration(4 * meter),
        gap_max=Duration(meter * 5 // 2),
        remember=Duration(20 * MINUTE),
    )


def name_of(kind: str, number: int) -> NodeKey:
    return NodeKey(blake2b(f"{kind} {number}".encode(), digest_size=32).digest())


class Town:
    def __init__(self, seed: int, plan: Plan = Plan()) -> None:  # noqa: B008
        self.plan, self.world = plan, World(seed)
        self.network, self.chain = Network(self.world, plan.weather), Chain(BIRTH)
        self.around = Around(
            self.world,
            self.network,
            self.chain,
            plan.tick,
            plan.meter,
            {},
            plan.expiry_blocks,
            plan.unprepared,
        )
        self.market = Market(self.world.random)
        self.nodes: dict[NodeKey, Node] = {}
        self.users: list[User] = []
        self.minted: dict[NodeKey, int] = {}
        self.world_start = self.world.now
        self.crashes = 0
        for number in range(plan.providers):
            self.add_provider(number)
        for number in range(plan.tenants):
            self.add_tenant(number)
        self.chain.mine()
        self._plan_blocks()

    # -- people ----------------------------------------------------------------------------------------
    def add_provider(
        self, number: int, kind: type[Node] = Node, policy: ProviderPolicy | None = None
    ) -> Node:
        name, random = name_of("provider", number), self.world.random
        node = kind(self.around, name, policy or self._some_policy(number), None)
        self._join(node)
        self.world.every(MINUTE, partial(self._publish, node), first=int(random.random() * 10 * SECOND))
        return node

    def _some_policy(self, number: int) -> ProviderPolicy:
        """Prices a thousand times those of the real world, so that an hour is worth some satoshis."""
        random = self.world.random
        capacity = Resources(random.choice((4000, 8000, 16000)), random.choice((8, 16, 32)) * GIB, 400 * GIB)
        if number < self.plan.providers * self.plan.free_providers:
            mine = tuple(name_of("tenant", number * FRIENDS + n) for n in range(FRIENDS))
            return msgspec.structs.replace(
                provider_policy(PRESETS["free"], capacity, self.plan.meter), only_for=mine
            )
        factor = random.randrange(500, 1500)
        fair = PRESETS["fair"]
        tariff = Tariff(*(getattr(fair, field) * factor for field in fair.__struct_fields__))
        return provider_policy(tariff, capacity, self.plan.meter, Sat(random.choice((0, 0, 500))))

    def add_tenant(self, number: int, kind: type[Node] = Node, coins: int = 8) -> User:
        random, time = self.world.random, self.plan.time
        node = kind(self.around, name_of("tenant", number), None, tenant_policy(self.plan.meter))
        self.chain.mint(node.name, COIN, coins)
        self.minted[node.name] = COIN * coins
        self._join(node)
        limits = Resources(
            random.choice((250, 500, 1000, 2000)), random.choice((128, 256, 512)) * MIB, 1 * GIB
        )
        begin = Duration(int(time * random.uniform(0.02, 0.2)))
        stop = Duration(int(time * random.uniform(0.5, 0.95)))
        user = User(node, self.market, limits, begin, stop, self.plan.channel)
        self.users.append(user)
        user.start()
        return user

    def _join(self, node: Node) -> None:
        self.nodes[node.name] = node
        node.start()

    def _publish(self, node: Node) -> None:
        if node.alive and node.provider is not None:
            self.market.publish(offer(node.provider, node.name))

    # -- the chain -------------------------------------------------------------------------------------
    def _plan_blocks(self) -> None:
        mean = HOUR / self.plan.blocks_per_hour
        self.world.later(int(self.world.random.expovariate(1 / mean)), self._block)

    def _block(self) -> None:
        self.mine()
        self._plan_blocks()

    def mine(self) -> None:
        self.chain.mine()
        self._everybody_looks()

    def _everybody_looks(self) -> None:
        for node in self.nodes.values():
            self.world.later(int(self.world.random.random() * 5 * SECOND), node.look_at_chain)

    # -- accidents -------------------------------------------------------------------------------------
    def plan_accidents(self) -> None:
        plan, random, time = self.plan, self.world.random, self.plan.time
        for node in list(self.nodes.values()):
            for _ in range(int(random.expovariate(1.0) * plan.crashes_per_hour * time / HOUR + 0.5)):
                self.world.later(int(random.random() * time * 0.9), partial(self._crash, node))
        for _ in range(plan.cuts):
            self.world.later(int(random.random() * time * 0.8), self._cut)
        for _ in range(plan.reorganisations):
            self.world.later(int(random.uniform(0.2, 0.8) * time), self._reorganise)

    def _crash(self, node: Node) -> None:
        """Between the next journal write and its effects: the worst moment there is."""
        random = self.world.random
        if node.alive and not node.dies_in:
            self.crashes += 1
            node.dies_in = 1
            down = int(random.uniform(0.05, 1.0) * self.plan.down_most)
            self.world.later(down, partial(self._revive, node, random.random() < 0.3))

    def _revive(self, node: Node, reboot: bool) -> None:
        if not node.alive:
            node.restart(reboot=reboot)
        node.dies_in = 0

    def _cut(self) -> None:
        random = self.world.random
        island = random.randrange(1, 1 << 30)
        lost = random.sample(list(self.nodes), max(1, len(self.nodes) // 10))
        for name in lost:
            self.network.cut(name, island)
        self.world.later(int(random.uniform(0.5, 3) * MINUTE), partial(self._mend, lost))

    def _mend(self, names: list[NodeKey]) -> None:
        for name in names:
            self.network.cut(name, 0)

    def _reorganise(self) -> None:
        """Two blocks go, two others come; one funding of the first of them is double-spent away."""
        self.chain.reorganise(2)
        self.chain.mine()
        self.mine()

    # -- time ------------------------------------------------------------------------------------------
    def live(self, watch: Callable[[Town], None] | None = None) -> None:
        """The busy time; *watch* looks at the whole town once a minute."""
        self.plan_accidents()
        for _ in range(int(self.plan.time // MINUTE)):
            self.world.run(MINUTE)
            if watch is not None:
                watch(self)

    def wind_down(self) -> None:
        """The weather clears, all come back, the users have left: half an hour for the last bills and closes, then
        on to the expiry of whatever is left."""
        self.network.weather = CALM
        self._mend(list(self.nodes))
        for node in self.nodes.values():
            node.dies_in = 0
            if not node.alive:
                node.restart()
        self.world.run(Duration(30 * MINUTE))
        expiries = [
            c.terms.expiry_height for n in self.nodes.values() if n.tenant for c in n.tenant.channels.values()
        ]
        self._skip_to(max(expiries, default=0) - 200)
        self._skip_to(max(expiries, default=0) + 1)
        for _ in range(40):
            self.world.run(Duration(10 * SECOND))
            self.mine()
        self.world.run(MINUTE)

    def _skip_to(self, height: int) -> None:
        while self.chain.height < height:
            self.chain.mine()
        self._everybody_looks()
        self.world.run(MINUTE)

    @property
    def digest(self) -> str:
        """The whole history and where it led to."""
        for node in self.nodes.values():
            self.world.note(b"%d %d" % (self.chain.balance(node.name), len(node.journal)))
            for value in node.journal.values():
                self.world.note(value)
        return self.world.digest
