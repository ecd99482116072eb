"""Carries frames between nodes: late, lost, doubled, out of order, repeated much later, or not at all.

Counterpart: ``adapters/link``. The one rule: a frame is bytes as on the wire, and a receiver knows who sent it.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import NamedTuple, Protocol

from dockage.domain.identity import NodeKey
from dockage.domain.units import MILLISECOND, SECOND

from .world import World


class Weather(NamedTuple):
    """Chances per frame, and the latency in nanoseconds."""

    loss: float = 0.0
    twice: float = 0.0
    replay: float = 0.0
    """Once more, up to a minute later."""
    least: int = 5 * MILLISECOND
    most: int = 150 * MILLISECOND


CALM = Weather()
ROUGH = Weather(loss=0.015, twice=0.005, replay=0.002)


class Receiver(Protocol):
    def receive(self, sender: NodeKey, frame: bytes) -> None: ...


class Network:
    def __init__(self, world: World, weather: Weather = CALM) -> None:
        self.weather = weather
        self.counts: Counter[str] = Counter()
        self._world = world
        self._nodes: dict[NodeKey, Receiver] = {}
        self._island: dict[NodeKey, int] = {}

    def join(self, name: NodeKey, node: Receiver) -> None:
        self._nodes[name] = node

    def cut(self, name: NodeKey, island: int) -> None:
        """Nodes on different islands do not reach each other; everybody starts on island 0."""
        self._island[name] = island

    def send(self, sender: NodeKey, to: NodeKey, frame: bytes) -> None:
        weather, chance = self.weather, self._world.random.random
        self.counts["sent"] += 1
        if chance() < weather.loss or not self.reaches(sender, to):
            self.counts["lost"] += 1
            return
        self._deliver(sender, to, frame, 0)
        if chance() < weather.twice:
            self._deliver(sender, to, frame, 0)
        if chance() < weather.replay:
            self._deliver(sender, to, frame, int(chance() * 60 * SECOND))

    def reaches(self, one: NodeKey, other: NodeKey) -> bool:
        return self._island.get(one, 0) == self._island.get(other, 0) and other in self._nodes

    def _deliver(self, sender: NodeKey, to: NodeKey, frame: bytes, extra: int) -> None:
        spread = self.weather.most - self.weather.least
        delay = self.weather.least + int(self._world.random.random() * spread) + extra
        self._world.later(delay, partial(self._nodes[to].receive, sender, frame))
