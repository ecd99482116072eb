"""Containers that try to take more than they rented: each ends at its own limit, and the neighbour goes on."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import time
from pathlib import Path

import pytest

from dockage.adapters.host import DockerHost
from dockage.domain.units import MIB
from dockage.protocol.images import lease_tag
from dockage.wire.http import HttpClient
from dockage.wire.splice import SocketStream
from hostlab import Lab, until

from .conftest import LIMITS, Tenant
from .test_isolation import ask


async def test_a_memory_bomb_is_killed_alone(ours: Tenant, theirs: Tenant, lab: Lab) -> None:
    """Also one made of files in memory, and one of many containers that each stay below."""
    other = await theirs.run("IMAGE", "sleep", "100")
    grow = "x=x; while :; do x=$x$x; done"
    await ours.docker("run", "--rm", *ours.with_image("IMAGE", "sh", "-c", grow), code=137)
    fill = "dd if=/dev/zero of=/t/x bs=1M count=400"
    tmpfs = ("run", "--rm", "-m", "32m", "--tmpfs", "/t:size=1g", *ours.with_image("IMAGE", "sh", "-c", fill))
    said = await ours.refused(*tmpfs)
    assert "No space left" in said or said == "" or "Killed" in said
    assert lab.docker("inspect", "-f", "{{.State.Running}}", other) == "true"


async def test_a_fork_bomb_ends_at_the_number_of_processes(ours: Tenant, theirs: Tenant) -> None:
    bomb = "i=0; while [ $i -lt 200 ]; do sleep 5 & i=$((i+1)); done; echo all"
    out, err = await ours.split(
        "run", "--rm", "--pids-limit", "50", *ours.with_image("IMAGE", "sh", "-c", bomb), code=2
    )
    assert b"can't fork" in err
    assert b"all" not in out
    assert await theirs.docker("run", "--rm", *theirs.with_image("IMAGE", "echo", "fine")) == "fine"


async def test_a_busy_loop_has_its_cores_and_no_more(ours: Tenant, host: DockerHost) -> None:
    await ours.run("IMAGE", "sh", "-c", "for i in 1 2 3 4; do (while :; do :; done) & done; wait")
    before, began = await host.read(ours.lease), time.monotonic_ns()

    async def used_some() -> bool:
        return (await host.read(ours.lease)).cpu_ns - before.cpu_ns > 300_000_000

    await until(used_some)
    used = (await host.read(ours.lease)).cpu_ns - before.cpu_ns
    assert used <= (time.monotonic_ns() - began) * LIMITS.cpu_milli / 1000 + 200_000_000  # two periods' slack


async def test_a_disk_bomb_ends_at_the_disk_of_the_lease(ours: Tenant, theirs: Tenant) -> None:
    fill = ours.with_image("IMAGE", "sh", "-c", "dd if=/dev/zero of=/bomb bs=1M count=600")
    assert "No space left on device" in await ours.docker("run", "--rm", *fill, code=1)
    small = theirs.with_image("IMAGE", "sh", "-c", "echo fine >/f; cat /f")
    assert await theirs.docker("run", "--rm", *small) == "fine"


async def test_a_log_bomb_fills_two_small_files(ours: Tenant, lab: Lab) -> None:
    id = await ours.run(
        "IMAGE", "sh", "-c", "head -c 40000000 /dev/zero | tr '\\0' x | fold -w 1000; echo over; sleep 100"
    )

    async def over() -> bool:
        return (await ours.docker("logs", "--tail", "1", id)).endswith("over")

    await until(over)
    logs = Path(lab.docker("inspect", "-f", "{{.LogPath}}", id)).parent.glob("*.log*")
    assert sum(path.stat().st_size for path in logs) <= 21 * MIB


# -- archives ------------------------------------------------------------------------------------------
def tar_of(*entries: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for entry in entries:
            tar.addfile(entry, io.BytesIO(b"x" * entry.size))
    return out.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, size, 0o4777
    info.devmajor, info.devminor = (7, 0) if kind == tarfile.BLKTYPE else (0, 0)
    return info


async def put(tenant: Tenant, id: str, path: str, archive: bytes) -> int:
    stream = SocketStream(*await asyncio.open_unix_connection(str(tenant.socket)))
    try:
        kind = [("content-type", "application/x-tar")]
        response = await HttpClient(stream).request(
            "PUT", f"/containers/{id}/archive?path={path}", kind, archive
        )
        await response.read_body()
        return response.status
    finally:
        stream.abort()


@pytest.mark.both_engines
async def test_an_archive_cannot_write_outside_of_its_container(
    ours: Tenant, lab: Lab, tmp_path: Path, host: DockerHost
) -> None:
    """The engine unpacks as root of the machine: links, devices, and the folder that it must not touch."""
    aim = tmp_path / "aim"
    aim.mkdir()
    id = await ours.run(
        "IMAGE", "sh", "-c", f"mkdir -p /in; ln -s {aim} /in/there; ln -s / /in/up; sleep 100"
    )
    out = str(aim)
    tricks = (
        tar_of(entry("link", tarfile.SYMTYPE, out), entry("link/stolen", size=4)),
        tar_of(entry("../" * 30 + out.lstrip("/") + "/stolen", size=4)),
        tar_of(entry(out + "/stolen", size=4)),
        tar_of(entry("hard", tarfile.LNKTYPE, "../" * 30 + "etc/passwd")),
    )
    for trick in tricks:
        for path in ("/in", "/in/there", "/in/up"):
            await put(ours, id, path, trick)
    assert list(aim.iterdir()) == []
    assert await put(ours, id, "/sys/firmware", tar_of(entry("stolen", size=4))) >= 400
    assert os.listdir(host.guard(ours.lease)) == []
    await put(ours, id, "/in", tar_of(entry("disk", tarfile.BLKTYPE), entry("root", size=4)))
    said = await ours.refused("exec", id, "head", "-c", "1", "/in/disk")
    assert "not permitted" in said or "No such" in said
    assert lab.docker("inspect", "-f", "{{.State.Running}}", id) == "true"


async def test_an_image_of_another_lease_is_none(ours: Tenant, theirs: Tenant, lab: Lab) -> None:
    other = lab.docker("import", "-c", "CMD sh", "-", text="")
    lab.docker("tag", other, tag := lease_tag(theirs.lease, other))
    for reference in (other, other[7:], tag, tag.rpartition(":")[2]):
        status, _ = await ask(ours, "POST", "/containers/create", {"Image": reference})
        assert status == 404, reference
    assert other in await theirs.docker("images", "-q", "--no-trunc")
    assert other not in await ours.docker("images", "-q", "--no-trunc")
    lab.docker("rmi", tag)
