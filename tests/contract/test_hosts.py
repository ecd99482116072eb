"""The fake machine keeps the contract of ContainerHost. The real one does so in tests/host/test_contract.py."""

from __future__ import annotations

import pytest

from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.domain.units import MIB, SECOND, Duration
from dockage.testing.clock import ManualClock
from dockage.testing.host import FakeContainer, FakeHost, echo
from dockage.testing.host_contract import LIMITS, HostContract, Stage
from hostlab import stream_pair

LEASES = (LeaseId(b"\1" * 16), LeaseId(b"\2" * 16))
BUSY = FakeContainer(cpu_milli=500, memory_bytes=10 * MIB, disk_bytes=3 * MIB, ports={7: echo})


class TestFakeHost(HostContract):
    @pytest.fixture
    def stage(self) -> Stage:
        clock = ManualClock()
        host = FakeHost(clock)

        async def start(lease: LeaseId) -> str:
            host.start(lease, "worker", BUSY)
            return "worker"

        async def remove(lease: LeaseId, name: str) -> None:
            host.stop(lease, name)

        async def wait() -> None:
            clock.pass_(SECOND)

        return Stage(host, LEASES, start, remove, stream_pair, wait)


async def test_usage_follows_the_clock_and_the_limit() -> None:
    clock = ManualClock()
    host = FakeHost(clock)
    await host.prepare(LEASES[0], LIMITS)
    host.start(LEASES[0], "greedy", FakeContainer(cpu_milli=4000, internet_out_per_s=10))
    clock.pass_(Duration(3 * SECOND // 2))
    reading = await host.read(LEASES[0])
    assert reading.cpu_ns == 3 * SECOND // 2
    assert reading.internet_out_bytes == 15


async def test_new_counters_come_with_a_new_name() -> None:
    clock = ManualClock()
    host = FakeHost(clock)
    await host.prepare(LEASES[0], Resources(cpu_milli=1000))
    host.start(LEASES[0], "worker", BUSY)
    clock.pass_(SECOND)
    before = await host.read(LEASES[0])
    host.restart()
    assert (await host.read(LEASES[0])).cpu_ns == before.cpu_ns
    assert (await host.read(LEASES[0])).run != before.run
    host.reboot()
    after = await host.read(LEASES[0])
    assert (after.cpu_ns, after.containers) == (0, 0)
    assert after.boot != before.boot
