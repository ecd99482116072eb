"""The tunnel carries every byte, counts each once, and ends only in containers of its own lease."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from dockage.adapters.host import DockerHost
from dockage.adapters.host.tunnel import Tunnels
from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.domain.units import MIB
from dockage.ports.hosting import LEASE_LABEL
from dockage.wire.engine import Answer
from dockage.wire.splice import SocketStream
from hostlab import IMAGE, Lab, listening, stream_pair

LIMITS = Resources(cpu_milli=1000, memory_bytes=64 * MIB, disk_bytes=64 * MIB)
Leases = Callable[[int], LeaseId]
ECHO = ("sh", "-c", "nc -ll -p 7 -e cat")


async def through(host: DockerHost, lease: LeaseId, container: str, payload: bytes, port: int = 7) -> bytes:
    """What comes back for *payload*."""
    ours, theirs = await stream_pair()
    answer = b""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(host.serve_tunnel(lease, container, port, theirs))
        tasks.create_task(_send(ours, payload))
        while piece := await ours.read(1 << 16):
            answer += piece
    ours.abort()
    return answer


async def _send(stream: SocketStream, payload: bytes) -> None:
    await stream.write(payload)
    await stream.finish()


async def test_every_byte_is_carried_and_counted_once(lab: Lab, host: DockerHost, lease_of: Leases) -> None:
    lease, payload = lease_of(1), bytes(range(256)) * 4000
    await host.prepare(lease, LIMITS)
    container = lab.run(lease, "-d", IMAGE, *ECHO)
    await listening(lab, container)
    assert await through(host, lease, container, payload) == payload
    assert await through(host, lease, container[:12], b"again") == b"again"
    reading = await host.read(lease)
    assert (reading.tunnel_in_bytes, reading.tunnel_out_bytes) == (len(payload) + 5, len(payload) + 5)
    assert reading.internet_out_bytes == 0


async def test_only_containers_of_the_lease_can_be_reached(
    lab: Lab, host: DockerHost, lease_of: Leases
) -> None:
    ours, other = lease_of(1), lease_of(2)
    await host.prepare(ours, LIMITS)
    await host.prepare(other, LIMITS)
    private = lab.docker("run", "-d", IMAGE, "sleep", "100")
    theirs = lab.run(other, "-d", IMAGE, "sleep", "100")
    for container in (theirs, private, "nobody", "../info", "", "a b", "x" * 300):
        _, end = await stream_pair()
        with pytest.raises(UsageError) as error:
            await host.serve_tunnel(ours, container, 7, end)
        assert error.value.code == "tunnel.container"
        end.abort()
        _.abort()
    lab.docker("rm", "-f", private)


@pytest.mark.parametrize("port", [0, -1, 65536])
async def test_a_port_is_a_port(host: DockerHost, lease_of: Leases, port: int) -> None:
    await host.prepare(lease_of(1), LIMITS)
    ours, theirs = await stream_pair()
    with pytest.raises(UsageError, match="there is no port"):
        await host.serve_tunnel(lease_of(1), "container", port, theirs)
    ours.abort()
    theirs.abort()


async def test_a_closed_port_and_a_stopped_container_say_so(
    lab: Lab, host: DockerHost, lease_of: Leases
) -> None:
    lease = lease_of(1)
    await host.prepare(lease, LIMITS)
    container = lab.run(lease, "-d", IMAGE, "sleep", "100")
    with contextlib.ExitStack() as undo:
        for stop in (False, True):
            if stop:
                lab.docker("kill", container)
                host._tunnels.forget(lease)
            ours, theirs = await stream_pair()
            undo.callback(ours.abort)
            undo.callback(theirs.abort)
            with pytest.raises(Unavailable) as error:
                await host.serve_tunnel(lease, container, 81, theirs)
            assert error.value.code == "tunnel.closed"


async def test_one_asks_where_a_container_is_for_all_who_knock() -> None:
    """While an engine starts one it answers nobody who asks about it, and every knock would be one more question."""
    asked, started = list[str](), asyncio.Event()

    async def call(_: str, path: str) -> Answer:
        asked.append(path)
        await started.wait()
        labels = {"Config": {"Labels": {LEASE_LABEL: bytes(16).hex()}}}
        found = {**labels, "NetworkSettings": {"Networks": {"own": {"IPAddress": "127.0.0.1"}}}}
        return Answer(200, json.dumps(found).encode())

    tunnels = Tunnels(SimpleNamespace(call=call), asyncio.get_running_loop().time)  # type: ignore[arg-type]
    knocks = [asyncio.ensure_future(tunnels._address(LeaseId(bytes(16)), "web", 80)) for _ in range(20)]
    await asyncio.sleep(0)
    started.set()
    assert await asyncio.gather(*knocks) == ["127.0.0.1"] * 20
    assert asked == ["/containers/web/json"]
