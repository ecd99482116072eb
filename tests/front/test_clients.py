"""Other clients than the CLI: docker-py, a terminal, HTTP/2 over an upgraded connection, and rude ones."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import termios
from pathlib import Path

import docker
import pytest

from dockage.adapters.front.front import DockerFront
from dockage.adapters.sqlite.journal import SqliteJournal
from dockage.adapters.system.clock import SystemClock
from dockage.domain.errors import UsageError
from dockage.domain.identity import LeaseId
from dockage.ports.renting import Progress
from dockage.testing.leases import FakeLeases
from frontlab import LIMITS, Tenant
from hostlab import IMAGE


async def ask(socket: Path, head: str, body: bytes = b"") -> tuple[int, bytes]:
    """One raw request; its status and whatever came until the connection ended."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return int(answer.split()[1]), answer


def use_docker_py(url: str) -> None:
    client = docker.DockerClient(base_url=url, version="auto", timeout=60)
    try:
        small = {"mem_limit": "64m", "nano_cpus": 500_000_000}
        box = client.containers.run(
            IMAGE, ["sleep", "60"], name="py", detach=True, labels={"k": "v"}, **small
        )
        assert [one.name for one in client.containers.list(filters={"label": ["k=v"]})] == ["py"]
        code, output = box.exec_run(["sh", "-c", "echo out; exit 4"])
        assert (code, output) == (4, b"out\n")
        code, output = box.exec_run(["sh", "-c", "test -t 1 && echo tty"], tty=True)
        assert (code, output) == (0, b"tty\r\n")
        assert client.api.stats(box.id, stream=False)["name"] == "/py"
        box.stop(timeout=1)
        assert box.wait()["StatusCode"] in (137, 143)
        box.remove()
        with pytest.raises(docker.errors.NotFound):
            client.containers.get("py")
        assert client.containers.run(IMAGE, ["echo", "hi"], remove=True, **small) == b"hi\n"
    finally:
        client.close()


async def test_docker_py(tenant: Tenant) -> None:
    await asyncio.to_thread(use_docker_py, f"unix://{tenant.socket}")


async def test_an_interactive_terminal(tenant: Tenant) -> None:
    """Of an unusual size, which reaches the container by a request of its own."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (17, 93))
    wait = 'until [ "$(stty size)" = "17 93" ]; do sleep 0.1; done'
    command = ["run", "--rm", "-it", *LIMITS, IMAGE, "sh", "-c", f"{wait}; read line; echo got $line"]
    process = await asyncio.create_subprocess_exec(
        "docker", *command, stdin=theirs, stdout=theirs, stderr=theirs, env=tenant.env, start_new_session=True
    )
    os.close(theirs)
    seen = b""
    try:
        os.write(ours, b"typed\n")
        while b"got typed" not in seen:
            seen += await asyncio.wait_for(asyncio.to_thread(os.read, ours, 4096), 30)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        os.close(ours)


async def test_http2_over_an_upgraded_connection_reaches_the_local_engine(tenant: Tenant) -> None:
    """What buildx does on /session: after the 101, frames of another protocol."""
    head = (
        "POST /v1.44/session HTTP/1.1\nHost: d\nConnection: Upgrade\nUpgrade: h2c\n"
        "X-Docker-Expose-Session-Uuid: x1\nX-Docker-Expose-Session-Name: x"
    )
    reader, writer = await asyncio.open_unix_connection(str(tenant.socket))
    writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert b" 101 " in answer.split(b"\r\n")[0]
    first = await asyncio.wait_for(reader.read(24), 10)
    assert first.startswith(b"PRI * HTTP/2.0")  # the engine is the HTTP/2 client of a session
    writer.close()


async def test_a_classic_build_is_the_local_engines(tenant: Tenant, folder: Path) -> None:
    (folder / "ctx").mkdir()
    (folder / "ctx" / "Dockerfile").write_text(f"FROM {IMAGE}\nLABEL made=here\n")
    tenant.env["DOCKER_BUILDKIT"] = "0"
    await tenant.docker("build", "-q", "-t", "built:1", str(folder / "ctx"))
    assert await tenant.docker("image", "inspect", "-f", "{{.Config.Labels.made}}", "built:1") == "here"
    await tenant.docker("rmi", "built:1")


async def test_without_a_local_engine_images_say_what_is_missing(leases: FakeLeases, folder: Path) -> None:
    async def send_image(reference: str, lease: LeaseId, progress: Progress) -> str:
        raise UsageError("image.no-engine", "unreachable in this test")

    journal = SqliteJournal(folder / "bare.db")
    front = DockerFront(folder / "bare.sock", leases, None, send_image, journal, clock=SystemClock())
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "DOCKER_HOST": f"unix://{folder / 'bare.sock'}"}
    tenant = Tenant(lambda: front, folder / "bare.sock", leases, env)
    await tenant.start()
    assert "has no local Docker engine" in await tenant.refused("pull", "busybox")
    assert "has no local Docker engine" in await tenant.refused("run", "busybox")
    assert await tenant.docker("ps", "-q") == ""
    await tenant.stop()
    journal.close()


async def test_a_client_that_gives_up_waiting_rents_nothing(tenant: Tenant) -> None:
    leases, waiting = tenant.leases, asyncio.Event()
    obtain = leases.obtain

    async def slow(*args: object) -> object:
        waiting.set()
        await asyncio.sleep(60)
        return await obtain(*args)  # type: ignore[arg-type]

    leases.obtain = slow  # type: ignore[method-assign, assignment]
    process = await tenant.process("create", "--name", "late", *LIMITS, IMAGE, "true")
    await asyncio.wait_for(waiting.wait(), 20)
    process.kill()
    await process.communicate()
    await asyncio.sleep(0.3)
    leases.obtain = obtain  # type: ignore[method-assign]
    await tenant.docker("create", "--name", "late", *LIMITS, IMAGE, "true")  # the name is free again
    assert len(leases.all()) == 1


async def test_a_container_left_over_from_a_crash_makes_room(tenant: Tenant) -> None:
    """The engine made it, but the record of it was never written."""
    await tenant.docker("network", "create", "net")
    await tenant.run("--name", "keeper", "--network", "net", IMAGE, "sleep", "60")
    [info] = tenant.leases.all()
    stream = await tenant.leases.engine(info.id)
    body = json.dumps({"Image": (await tenant.inspect("keeper"))["Image"], "Cmd": ["true"]}).encode()
    head = f"POST /containers/create?name=orphan HTTP/1.1\r\nHost: d\r\nContent-Length: {len(body)}\r\n\r\n"
    await stream.write(head.encode() + body)
    assert b" 201 " in await stream.read(4096)
    stream.abort()
    await tenant.docker("create", "--name", "orphan", "--network", "net", *LIMITS, IMAGE, "echo", "mine")
    assert await tenant.docker("start", "-a", "orphan") == "mine"


async def test_rude_requests_get_an_answer_and_harm_nobody(tenant: Tenant) -> None:
    big = b"x" * ((4 << 20) + 1)
    cases = [
        ("GET /v1.44/nonsense HTTP/1.1\nHost: d\nConnection: close", b"", 404),
        ("GET /v9.99/info HTTP/1.1\nHost: d\nConnection: close", b"", 400),
        ("GET /swarm HTTP/1.1\nHost: d\nConnection: close", b"", 503),
        ("GET /containers/json?filters=x HTTP/1.1\nHost: d\nConnection: close", b"", 400),
        ("POST /containers/create HTTP/1.1\nHost: d\nConnection: close\nContent-Length: 1", b"x", 400),
        (
            f"POST /containers/create HTTP/1.1\nHost: d\nConnection: close\nContent-Length: {len(big)}",
            big,
            413,
        ),
        ("GARBAGE", b"", 400),
        ("GET /containers/%2e%2e/json HTTP/1.1\nHost: d\nConnection: close", b"", 404),
    ]
    for head, body, status in cases:
        assert (await ask(tenant.socket, head, body))[0] == status, head
    assert await tenant.docker("ps", "-q") == ""


async def test_kept_connections_serve_one_request_after_the_other(tenant: Tenant) -> None:
    reader, writer = await asyncio.open_unix_connection(str(tenant.socket))
    for _ in range(3):
        writer.write(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        assert b"200" in await reader.readline()
        answer = await reader.readuntil(b"\r\n\r\nOK")
        assert b"api-version: 1.44" in answer.lower()
    writer.close()
