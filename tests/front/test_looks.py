"""Looks into a real lease on a real engine: the truth passes, and a doctored provider is found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from dockage.adapters.host import DockerHost
from dockage.adapters.images import ImageSender
from dockage.adapters.probe.prober import LeaseProber, ProbeImage, program
from dockage.domain.checks import Look
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.lease import LeaseState
from dockage.domain.offer import Quote
from dockage.domain.pricing import Tariff
from dockage.domain.resources import Resources
from dockage.domain.statement import Statement, View, digest
from dockage.domain.units import MINUTE, SECOND, Duration, Instant, Msat, Sat
from dockage.domain.usage import Reading
from dockage.node import effects as want
from dockage.node import events as told
from dockage.node import provider as selling
from dockage.node import tenant as renting
from dockage.node.policy import ProviderPolicy, TenantPolicy
from dockage.node.table import Table
from dockage.protocol import probe
from dockage.testing.leases import FakeLeases
from frontlab import Tenant
from hostlab import IMAGE

PROVIDER, TENANT = NodeKey(b"P" * 32), NodeKey(b"T" * 32)
TICK = Duration(SECOND // 2)
POLICY = TenantPolicy(check_every=MINUTE, check_soon=Duration(1))
BUSY = "while :; do :; done"


def now() -> Instant:
    return Instant(time.time_ns())


@dataclass
class Pair:
    """A provider's mind and its tenant's, over one lease; *doctor* is what the provider does to its readings."""

    lease: LeaseId
    limits: Resources
    doctor: Callable[[Reading], Reading] = lambda reading: reading
    looking: bool = False
    ended: Any = field(default=None)

    def __post_init__(self) -> None:
        free, began = Tariff(), now()
        quote = Quote(self.lease, TENANT, self.limits, free, "", 1, Sat(0), began)
        sold = selling.SoldLease(
            self.lease, TENANT, self.limits, free, began, digest(quote), LeaseState.RUNNING, began
        )
        candidate = told.Candidate(PROVIDER, Msat(0))
        rented = renting.RentedLease(
            self.lease, "web", self.limits, (candidate,), LeaseState.RUNNING, began, began, began, quote
        )
        rented = renting.replace(rented, opened_at=began, limits_at=began)
        self.provider = selling.Provider(ProviderPolicy(free, self.limits, tick=TICK), Table([sold]))
        self.tenant = renting.Tenant(TENANT, POLICY, Table([rented]))

    @property
    def rented(self) -> renting.RentedLease:
        return self.tenant.leases[self.lease]

    @property
    def found(self) -> set[str]:
        return {breach.reason.code for breach in self.rented.breaches}

    def hear(self, event: told.AnyEvent) -> None:
        self.tenant, effects = renting.step(self.tenant, event, now())
        for effect in effects:
            if isinstance(effect, want.Moment):
                self.hear(told.MomentCame(effect.lease))
            elif isinstance(effect, want.Look):
                self.looking = True

    def read(self, reading: Reading) -> None:
        event = told.MeterRead(self.lease, self.doctor(reading))
        self.provider, effects = selling.step(self.provider, event, now())
        for effect in effects:
            if isinstance(effect, want.Send) and isinstance(effect.message, Statement):
                view = View(1 << 40, 1 << 40, Duration(0))
                self.hear(told.Received(PROVIDER, effect.message, b"s" * 64, view))
        self.hear(told.Ticked())

    def seen(self, look: Look) -> None:
        if self.looking:
            self.looking = False
            self.hear(told.Looked(self.lease, look))


async def meter(host: DockerHost, lease: LeaseId, pairs: list[Pair]) -> None:
    while True:
        reading = await host.read(lease)
        for pair in pairs:
            pair.read(reading)
        await asyncio.sleep(TICK / SECOND)


def prober(leases: FakeLeases) -> LeaseProber:
    async def send(lease: LeaseId, image: probe.Image) -> None:
        await ImageSender(ProbeImage(image)).send(lambda: leases.layers(lease), image.manifest.image)

    return LeaseProber(leases.engine, send, program("x86_64"), "x86_64", time.monotonic)


def doubled(reading: Reading) -> Reading:
    return msgspec.structs.replace(reading, cpu_ns=2 * reading.cpu_ns)


@pytest.mark.timeout(100)
async def test_twice_the_cpu_is_found_and_the_truth_is_not(
    tenant: Tenant, leases: FakeLeases, host: DockerHost
) -> None:
    """One lease, two tales about it: the truth, and twice its CPU. Half of the cores: e2e/test_looks."""
    await tenant.docker("run", "-d", "--cpus", "0.25", "--memory", "64m", IMAGE, "sh", "-c", BUSY)
    (info,) = leases.all()
    large = msgspec.structs.replace(info.limits, cpu_milli=4 * info.limits.cpu_milli)
    honest, cheat = Pair(info.id, info.limits), Pair(info.id, large, doubled)
    eyes, shown = prober(leases), []
    async with asyncio.TaskGroup() as tasks:
        metering = tasks.create_task(meter(host, info.id, [honest, cheat]))
        async with asyncio.timeout(60):
            while "meter.overstated" not in cheat.found:
                last = honest.rented.last
                until = last.at if last else Instant(0)
                look = await eyes.look(info.id, Instant(until - SECOND), until, 1 << 20, 1)
                shown.append(look)
                for pair in (honest, cheat):
                    pair.seen(look)
        metering.cancel()
    assert "meter.overstated" not in honest.found
    assert honest.rented.dispute is None
    assert cheat.rented.dispute is not None
    assert len(shown) > 2
    assert all(look.complete and len(look.containers) == 1 for look in shown[2:]), shown
    assert all(look.probe and look.probe.work and look.probe.touch_ns for look in shown), shown
    assert "dockage-probe" not in await tenant.docker("ps", "-a")


async def test_a_container_that_came_and_went_spoils_the_comparison_and_accuses_nobody(
    tenant: Tenant, leases: FakeLeases, host: DockerHost
) -> None:
    together = ("--label", "com.docker.compose.project=pair")
    await tenant.docker(
        "run", "-d", *together, "--cpus", "0.2", "--memory", "64m", IMAGE, "sh", "-c", "sleep 1000"
    )
    (info,) = leases.all()
    began = now()
    await tenant.docker("run", "--rm", *together, "--cpus", "0.2", "--memory", "32m", IMAGE, "true")
    look = await prober(leases).look(info.id, began, now(), 0, 1)
    assert not look.complete
    assert (await prober(leases).look(info.id, now(), now(), 0, 1)).complete
