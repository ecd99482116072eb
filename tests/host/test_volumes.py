"""A volume is as large as was agreed, outlives the daemon, and is nowhere else than in its lease."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dockage.adapters.host import DockerHost
from dockage.domain.errors import UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.domain.units import MIB
from hostlab import IMAGE, Lab, run

LIMITS = Resources(cpu_milli=1000, memory_bytes=64 * MIB, disk_bytes=64 * MIB)
Leases = Callable[[int], LeaseId]


async def test_a_volume_ends_where_it_ends(lab: Lab, host: DockerHost, lease_of: Leases) -> None:
    lease = lease_of(1)
    await host.prepare(lease, LIMITS)
    path = await host.create_volume(lease, "data", 16 * MIB)
    assert os.listdir(path) == []
    said = lab.run(
        lease, "--rm", "-v", f"{path}:/data", IMAGE, "sh", "-c", "dd if=/dev/zero of=/data/f bs=1M 2>&1; :"
    )
    assert "No space left on device" in said
    assert 8 * MIB < (await host.read(lease)).disk_bytes <= 16 * MIB


async def test_the_promises_stay_inside_the_leases_disk(host: DockerHost, lease_of: Leases) -> None:
    lease = lease_of(1)
    await host.prepare(lease, LIMITS)
    await host.create_volume(lease, "a", 40 * MIB)
    assert await host.create_volume(lease, "a", 40 * MIB) == (await host.volumes(lease))["a"]
    with pytest.raises(UsageError) as error:
        await host.create_volume(lease, "b", 40 * MIB)
    assert error.value.code == "volume.space"
    await host.remove_volume(lease, "a")
    await host.remove_volume(lease, "a")
    await host.create_volume(lease, "b", 40 * MIB)
    assert list(await host.volumes(lease)) == ["b"]


@pytest.mark.parametrize("name", ["", "../escape", "a/b", ".", "-o", "x" * 200, "new\nline"])
async def test_a_name_that_would_be_a_path_is_refused(host: DockerHost, lease_of: Leases, name: str) -> None:
    lease = lease_of(1)
    await host.prepare(lease, LIMITS)
    with pytest.raises(UsageError) as error:
        await host.create_volume(lease, name, 16 * MIB)
    assert error.value.code == "volume.name"


async def test_a_volume_in_use_stays(lab: Lab, host: DockerHost, lease_of: Leases) -> None:
    lease = lease_of(1)
    await host.prepare(lease, LIMITS)
    path = await host.create_volume(lease, "data", 16 * MIB)
    container = lab.run(lease, "-d", "-v", f"{path}:/data", IMAGE, "sleep", "100")
    with pytest.raises(UsageError) as error:
        await host.remove_volume(lease, "data")
    assert error.value.code == "volume.busy"
    lab.docker("rm", "-f", container)
    await host.remove_volume(lease, "data")
    assert await host.volumes(lease) == {}


async def test_after_a_reboot_the_files_are_there_again(
    lab: Lab, host: DockerHost, home: Path, lease_of: Leases
) -> None:
    """The mounts are gone, the images are not."""
    lease = lease_of(1)
    await host.prepare(lease, LIMITS)
    path = Path(await host.create_volume(lease, "data", 16 * MIB))
    (path / "note").write_text("kept")
    run("umount", str(path))
    (home / "leases" / lease.hex() / "volumes" / "torn.new").write_bytes(b"half of a mkfs")
    again = DockerHost(lab.socket, home, "run-2")
    await again.start()
    await again.prepare(lease, LIMITS)
    assert await again.volumes(lease) == {"data": str(path)}
    assert (path / "note").read_text() == "kept"
    await again.close()
