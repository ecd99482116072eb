"""The real machine keeps the same contract as the fake one (tests/contract/test_hosts.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from dockage.adapters.host import DockerHost
from dockage.domain.identity import LeaseId
from dockage.testing.host_contract import HostContract, Stage
from hostlab import IMAGE, Lab, listening, stream_pair

WORKER = (
    "while :; do i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; sleep 0.02; done & exec nc -ll -p 7 -e cat"
)
"""Some of a core is as good as all of it: others want it."""


@pytest.fixture(params=["engine_lab", "current_lab"], ids=["own", "current"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Debian 12's engine, and one of 28 or newer."""
    found = request.getfixturevalue(request.param)
    with found.inside():
        yield found


class TestDockerHost(HostContract):
    @pytest.fixture
    def stage(self, lab: Lab, host: DockerHost, lease_of: Callable[[int], LeaseId]) -> Stage:
        async def start(lease: LeaseId) -> str:
            container = lab.run(lease, "-d", IMAGE, "sh", "-c", WORKER)
            await listening(lab, container)
            return container

        async def remove(_: LeaseId, container: str) -> None:
            lab.docker("rm", "-f", container)

        async def wait() -> None:
            await asyncio.sleep(0.3)

        return Stage(host, (lease_of(1), lease_of(2)), start, remove, stream_pair, wait)
