"""Neighbours: the network in memory, and multicast DNS on loopback."""

from __future__ import annotations

import pytest

from dockage.adapters.lan import LanNeighbours
from dockage.ports.peers import Neighbours
from dockage.testing.lan import MemoryLan, NeighboursContract


class TestMemory(NeighboursContract):
    @pytest.fixture
    def two(self) -> tuple[Neighbours, Neighbours]:
        lan = MemoryLan()
        return lan.neighbour(), lan.neighbour()


class TestMulticast(NeighboursContract):
    @pytest.fixture
    def two(self) -> tuple[Neighbours, Neighbours]:
        return LanNeighbours(["127.0.0.1"]), LanNeighbours(["127.0.0.1"])
