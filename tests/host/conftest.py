"""The real machine: one engine for the session, one host and fresh lease ids for each test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from dockage.adapters.host import DockerHost
from dockage.domain.identity import LeaseId
from hostlab import CURRENT, SESSION, Lab


@pytest.fixture(scope="session")
def engine_lab() -> Iterator[Lab]:
    with Lab.opened() as lab:
        yield lab


@pytest.fixture(scope="session")
def current_lab() -> Iterator[Lab]:
    """The same with an engine of 28 or newer."""
    if not CURRENT.exists():
        pytest.skip("no current engine: run script/setup")
    with Lab.opened("c", CURRENT) as lab:
        yield lab


@pytest.fixture
def home() -> Iterator[Path]:
    """Not pytest's folder: it must be on a disk, and its mounts must be ours to find."""
    folder = Path(tempfile.mkdtemp(prefix="dkh-home-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def host(lab: Lab, home: Path) -> AsyncIterator[DockerHost]:
    """Whatever a test leaves is torn down, and that itself must work."""
    host = DockerHost(lab.socket, home, "run-1", disk_every=0.2)
    await host.start()
    yield host
    for lease in await host.present():
        await host.teardown(lease)
    await host.close()


@pytest.fixture
def lease_of() -> Callable[[int], LeaseId]:
    def make(number: int) -> LeaseId:
        return LeaseId(bytes([number]) + SESSION)

    return make
