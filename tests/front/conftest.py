"""A tenant's Docker socket over a real engine: the real gate, the real host, only the market between is not there.

One engine plays both sides, the tenant's own (it holds the images) and the provider's.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest

from barelab import Bare
from dockage.adapters.engine.gate import EngineGate
from dockage.adapters.front.front import DockerFront
from dockage.adapters.host import DockerHost
from dockage.adapters.sqlite.journal import SqliteJournal
from dockage.adapters.system.clock import SystemClock
from dockage.domain.identity import LeaseId
from dockage.ports.renting import Progress
from dockage.protocol.images import lease_tag
from dockage.testing.leases import FakeLeases
from frontlab import Tenant
from hostlab import SESSION, Lab


@pytest.fixture(scope="session")
def engine_lab() -> Iterator[Lab]:
    with Lab.opened("f") as lab:
        yield lab


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short (a socket's path has 108 bytes at most) and on a disk (volumes are mounted there)."""
    found = Path(tempfile.mkdtemp(prefix="dkh-home-"))
    yield found
    shutil.rmtree(found)


@pytest.fixture
async def host(lab: Lab, folder: Path) -> AsyncIterator[DockerHost]:
    host = DockerHost(lab.socket, folder / "home", "run-1", disk_every=0.5)
    await host.start()
    gate = EngineGate(lab.socket, host)
    host.gate = gate
    yield host
    for lease in await host.present():
        await host.teardown(lease)
    await gate.close()
    await host.close()


@pytest.fixture
async def leases(host: DockerHost) -> AsyncIterator[FakeLeases]:
    numbers = count(1)
    async with asyncio.TaskGroup() as serving:
        fake = FakeLeases(host, serving, lambda: LeaseId(bytes([next(numbers)]) + SESSION))
        yield fake
        for info in list(fake.all()):
            await fake.end(info.id, "the test is over")


@pytest.fixture
async def engine_tenant(lab: Lab, leases: FakeLeases, folder: Path) -> AsyncIterator[Tenant]:
    journal = SqliteJournal(folder / "journal.db")
    socket = folder / "front.sock"

    async def send_image(reference: str, lease: LeaseId, progress: Progress) -> str:
        progress(f"sending {reference}")
        image_id = await asyncio.to_thread(lab.docker, "image", "inspect", "-f", "{{.Id}}", reference)
        await asyncio.to_thread(lab.docker, "tag", reference, lease_tag(lease, image_id))
        return image_id

    def front() -> DockerFront:
        return DockerFront(
            socket, leases, lab.socket, send_image, journal, clock=SystemClock(), linger_sec=tenant.linger
        )

    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "DOCKER_HOST": f"unix://{socket}",
        "DOCKER_CONFIG": str(folder / "config"),
    }
    tenant = Tenant(front, socket, leases, env)
    await tenant.start()
    yield tenant
    await tenant.stop()
    journal.close()


@pytest.fixture
def tenant(engine_tenant: Tenant) -> Tenant:
    """One with an engine of its own, unless a module says otherwise."""
    return engine_tenant


@pytest.fixture
def bare(leases: FakeLeases, folder: Path) -> Bare:
    """A tenant without an engine."""
    return Bare(folder, leases)


@pytest.fixture
async def bare_tenant(
    bare: Bare, leases: FakeLeases, folder: Path, docker_config: Path
) -> AsyncIterator[Tenant]:
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "DOCKER_HOST": f"unix://{folder / 'bare.sock'}",
        "DOCKER_CONFIG": str(docker_config),
    }
    tenant = Tenant(bare.front, folder / "bare.sock", leases, env)
    await tenant.start()
    yield tenant
    await tenant.stop()
    bare.journal.close()
