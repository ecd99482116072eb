"""What a lease's containers write ends where the lease's disk ends: felt as ENOSPC, on old engines and new ones,
whatever happens to the container or the engine; and what they leave is gone with them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from dockage.adapters.host import DockerHost
from dockage.domain.errors import UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.domain.units import MIB
from hostlab import IMAGE, Lab, changes, run, until

LIMITS = Resources(cpu_milli=2000, memory_bytes=96 * MIB, disk_bytes=48 * MIB)
Leases = Callable[[int], LeaseId]
FILL = "dd if=/dev/zero of=/fill bs=1M 2>&1; rm -f /fill /etc/passwd; echo kept >/note; sleep 100"


@pytest.fixture(params=["engine_lab", "current_lab"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Lab)
    with found.inside():
        yield found


@pytest.fixture
async def host(lab: Lab, home: Path) -> AsyncIterator[DockerHost]:
    host = DockerHost(lab.socket, home, "run-1", disk_every=0.2)
    await host.start()
    yield host
    for lease in await host.present():
        await host.teardown(lease)
    await host.close()


async def made(lab: Lab, host: DockerHost, lease: LeaseId, *argv: str) -> str:
    """As the gate does it: between creation and start the layer is moved."""
    container = lab.create(lease, *argv)
    await host.enclose(lease, container)
    await host.enclose(lease, container)
    return container


async def held(host: DockerHost, lease: LeaseId) -> int:
    return (await host.read(lease)).disk_bytes


async def test_the_disk_ends_where_it_ends_through_all_that_happens(
    lab: Lab, host: DockerHost, home: Path, lease_of: Leases
) -> None:
    before, lease = lab.traces(), lease_of(1)
    await host.prepare(lease, LIMITS)
    assert await held(host, lease) < MIB
    container = await made(lab, host, lease, "--restart", "always", IMAGE, "sh", "-c", FILL)
    lab.docker("start", container)

    async def filled(times: int) -> None:
        async def full() -> bool:
            return lab.docker("logs", container).count("No space left on device") >= times

        await until(full)
        lab.docker("exec", container, "sh", "-c", "until [ -e /note -a ! -e /fill ]; do sleep 0.1; done")

    await filled(1)
    lab.docker("restart", "-t", "0", container)
    await filled(2)  # it begins anew, and what is copied needs room
    lab.docker("cp", f"{container}:/note", f"{home}/note")
    lab.docker("cp", f"{home}/note", f"{container}:/copy")
    assert {"A /note", "A /copy", "D /etc/passwd"} <= set(lab.docker("diff", container).splitlines())
    lab.stop_engine()
    lab.start_engine()
    await filled(3)
    assert lab.docker("exec", container, "cat", "/note", "/copy") == "kept\nkept"
    assert await held(host, lease) <= LIMITS.disk_bytes

    await host.prepare(lease, LIMITS + LIMITS)  # grown while in use
    more = "dd if=/dev/zero of=/more bs=1M count=60 2>&1"
    assert "No space" not in lab.docker("exec", container, "sh", "-c", more)
    assert 60 * MIB <= await held(host, lease) < 2 * LIMITS.disk_bytes
    with pytest.raises(UsageError, match="hold more disk") as error:
        await host.prepare(lease, LIMITS)
    assert error.value.code == "lease.shrink"
    lab.docker("exec", container, "rm", "/more")
    await host.prepare(lease, LIMITS)
    assert "No space" in lab.docker("exec", container, "sh", "-c", f"{more}; true")
    lab.docker("rm", "-f", container)

    async def swept() -> bool:
        return await held(host, lease) < MIB

    await until(swept)
    await host.teardown(lease)
    assert changes(before, lab.traces()) == []


async def test_held_are_blocks_also_of_a_deleted_open_file_and_not_of_a_sparse_one(
    lab: Lab, host: DockerHost, lease_of: Leases
) -> None:
    lease = lease_of(1)
    await host.prepare(lease, LIMITS)
    write = (
        "exec 3>/gone; dd if=/dev/zero bs=1M count=20 >&3; rm /gone; truncate -s 1G /sparse; echo 1 >>/sparse"
    )
    container = await made(lab, host, lease, IMAGE, "sh", "-c", f"{write}; sync; echo ready; sleep 100")
    lab.docker("start", container)

    async def written() -> bool:
        return "ready" in lab.docker("logs", container)

    await until(written)
    assert 20 * MIB <= await held(host, lease) < 21 * MIB
    lab.docker("kill", container)

    async def closed() -> bool:
        return await held(host, lease) < MIB

    await until(closed)


@pytest.mark.parametrize(
    "lab", ["current_lab"], indirect=True
)  # a reboot takes long, and the older one's is the same
async def test_after_a_crash_or_a_reboot_no_container_writes_anywhere_else(
    lab: Lab, host: DockerHost, home: Path, lease_of: Leases
) -> None:
    """One was made and not moved yet; the other's disk is not there when the engine wants to start it."""
    lease = lease_of(1)
    await host.prepare(lease, LIMITS)
    forgotten = lab.create(lease, IMAGE, "df", "-k", "/")
    kept = await made(
        lab, host, lease, "--restart", "always", IMAGE, "sh", "-c", "echo $$ >>/note; sleep 100"
    )
    lab.docker("start", kept)
    lab.stop_engine()
    disk = home / "leases" / lease.hex() / "writable"
    run("umount", str(disk))
    os.rmdir(host.guard(lease))
    lab.start_engine()
    assert lab.docker("inspect", "-f", "{{.State.Running}}", kept) == "false"
    again = DockerHost(lab.socket, home, "run-2")
    await again.start()
    await again.prepare(lease, LIMITS)
    assert lab.docker("exec", kept, "cat", "/note").split() == ["1", "1"]
    size = int(lab.docker("start", "-a", forgotten).splitlines()[-1].split()[3])
    assert size << 10 <= LIMITS.disk_bytes
    await again.close()
