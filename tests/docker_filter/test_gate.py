"""Requests that try to get more through the gate than its table: what reaches the engine is written down."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from dockage.adapters.engine.gate import EngineGate
from dockage.domain.identity import LeaseId
from dockage.ports.hosting import LeaseRoom
from dockage.wire.http import HttpServer
from dockage.wire.splice import SocketStream

LEASE = LeaseId(bytes(range(16)))
OURS, THEIRS = "a" * 64, "b" * 64
ITEM = {"Id": OURS, "Names": ["/x"], "Labels": {"dockage.lease": LEASE.hex()}}
PRIVILEGED = b'{"HostConfig":{"Privileged":true,"Binds":["/:/host"]},"Privileged":true}'


class Room:
    """What the gate asks of a lease's place before it knows what the request is about. Nothing here gets further."""

    def cgroup_parent(self, lease: LeaseId) -> str:
        return f"/dockage/{lease.hex()}"

    def network(self, lease: LeaseId) -> str:
        return "dkg-ours"

    def guard(self, lease: LeaseId) -> str:
        return ""


class Notary:
    """An engine that writes down what it is asked, and has one container."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.serving: set[asyncio.Task[Any] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = SocketStream(reader, writer)
        server = HttpServer(stream)
        self.serving.add(asyncio.current_task())
        while request := await server.read_request():
            body = await server.read_body()
            self.asked.append((request.method, request.target, dict(request.headers), body))
            await self._answer(server, request.target)
        stream.abort()
        await writer.wait_closed()

    async def _answer(self, server: HttpServer, target: str) -> None:
        answer: Any = {"ApiVersion": "1.41"} if target == "/version" else {}
        if "/containers/json" in target:
            answer = [ITEM]
        await server.answer(200, [("content-type", "application/json")], json.dumps(answer).encode())

    @property
    def changes(self) -> list[tuple[str, str, dict[str, str], bytes]]:
        return [each for each in self.asked if each[0] not in ("GET", "HEAD")]


class Door:
    """The gate of one lease, on a connection of its own for each attempt."""

    def __init__(self, gate: EngineGate, notary: Notary) -> None:
        self._gate, self.notary = gate, notary

    async def say(self, raw: bytes) -> bytes:
        """All that comes back until the gate ends the connection; we end our direction at once."""
        left, right = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=left)
        far = SocketStream(*await asyncio.open_connection(sock=right))
        writer.write(raw)
        writer.write_eof()
        async with asyncio.timeout(60):
            await self._gate.serve(LEASE, None, far)
            answer = await reader.read()
        writer.close()
        return answer


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    folder, notary = Path(tempfile.mkdtemp(prefix="dkg-")), Notary()
    server = await asyncio.start_unix_server(notary.serve, str(folder / "s"))
    gate = EngineGate(folder / "s", cast(LeaseRoom, Room()))
    yield Door(gate, notary)
    await gate.close()
    await asyncio.wait_for(
        asyncio.gather(*filter(None, notary.serving)), 60
    )  # its connections are kept until then
    server.close()
    shutil.rmtree(folder)


def post(target: str, body: bytes = b"", *headers: str, kind: str = "POST") -> bytes:
    fields = ["Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return f"{kind} {target} HTTP/1.1\r\n".encode() + "\r\n".join(fields).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize("version", ["", "/v1.12", "/v1.18", "/v1.23", "/v1.41", "/v99.999"])
@pytest.mark.parametrize("action", ["start", "restart", "stop", "kill", "unpause"])
async def test_a_body_that_old_engines_would_read_never_reaches_one(
    door: Door, version: str, action: str
) -> None:
    """Nor does any header of the tenant's."""
    secrets = ("X-Registry-Auth: e30=", "X-Registry-Config: e30=", "Authorization: Basic eDp5", "Cookie: a=b")
    answer = await door.say(post(f"{version}/containers/{OURS}/{action}", PRIVILEGED, *secrets))
    assert answer.startswith(b"HTTP/1.1 200")
    [(method, target, headers, body)] = door.notary.changes
    assert (method, target, body) == ("POST", f"/v1.41/containers/{OURS}/{action}", b"")
    assert set(headers) == {"host", "content-length"}


SMUGGLED = post(f"/containers/{THEIRS}/kill")
LENGTH = f"Content-Length: {len(SMUGGLED)}"
FRAMINGS = {
    "two lengths": f"{LENGTH}\r\nContent-Length: 0",
    "a list of lengths": f"Content-Length: 0, {len(SMUGGLED)}",
    "a length with a sign": f"Content-Length: +{len(SMUGGLED)}",
    "a length in hex": f"Content-Length: 0x{len(SMUGGLED):x}",
    "a length of letters": "Content-Length: \xb2",
    "length and chunks": f"{LENGTH}\r\nTransfer-Encoding: chunked",
    "chunks and length": f"Transfer-Encoding: chunked\r\n{LENGTH}",
    "chunks that are none": f"{LENGTH}\r\nTransfer-Encoding: xchunked",
    "chunks twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "chunks, then as it is": "Transfer-Encoding: chunked, identity",
    "a space before the colon": f"Transfer-Encoding : chunked\r\n{LENGTH}",
    "a folded line": f"Transfer-Encoding:\r\n chunked\r\n{LENGTH}",
    "a bare return": f"X: y\rTransfer-Encoding: chunked\r\n{LENGTH}",
    "a name with a null": f"Transfer\0-Encoding: chunked\r\n{LENGTH}",
}


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_request_inside_another_ones_body_is_never_read_as_one(door: Door, framing: str) -> None:
    head = f"POST /containers/{OURS}/wait HTTP/1.1\r\nHost: x\r\n{FRAMINGS[framing]}\r\n\r\n"
    await door.say(head.encode("latin-1") + b"0\r\n\r\n" + SMUGGLED)
    assert not [target for _, target, *_ in door.notary.asked if THEIRS in target]


async def test_a_pipelined_request_goes_through_the_table_like_any_other(door: Door) -> None:
    answer = await door.say(post(f"/containers/{OURS}/kill") + SMUGGLED + post("/swarm/init", b"{}"))
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"404", b"403"]
    assert [target for _, target, *_ in door.notary.changes] == [f"/v1.41/containers/{OURS}/kill"]


REFUSED = {
    "an image from a tar": post("/images/create?fromSrc=-", b"x"),
    "an image from somebody": post("/images/create?fromImage=evil"),
    "a build from an address": post("/build?remote=http://10.0.0.1/x"),
    "a build in the machine's network": post("/build?networkmode=host"),
    "a build in another cgroup": post("/build?cgroupparent=/"),
    "buildkit": post("/grpc", b"", "Connection: Upgrade", "Upgrade: h2c"),
    "buildkit's session": post("/session", b"", "Connection: Upgrade", "Upgrade: h2c"),
    "buildkit's cache": post("/build/prune"),
    "a commit": post(f"/commit?container={OURS}&changes=USER%20root", b"{}"),
    "a commit of another lease": post(f"/commit?container={THEIRS}", b"{}"),
    "attach by websocket": post(f"/containers/{OURS}/attach/ws?stream=1", kind="GET"),
    "attach by websocket, as an upgrade": post(
        f"/containers/{OURS}/attach/ws", b"", "Connection: Upgrade", "Upgrade: websocket", kind="GET"
    ),
    "a checkpoint": post(f"/containers/{OURS}/checkpoints", b'{"CheckpointID":"x","CheckpointDir":"/etc"}'),
    "a start from one": post(f"/containers/{OURS}/start?checkpoint=x&checkpoint-dir=/etc"),
    "a copy by the old call": post(f"/containers/{OURS}/copy", b'{"Resource":"/etc"}'),
    "swarm": post("/swarm/init", b"{}"),
    "a service": post("/services/create", b"{}"),
    "a plugin": post("/plugins/pull?remote=x", b"[]"),
    "a plugin's socket": post("/VolumeDriver.Create", b"{}"),
    "a log-in": post("/auth", b'{"username":"x","password":"y"}'),
    "the engine's configuration": post("/info", kind="GET"),
    "its reload": post("/reload", b"{}"),
    "its profile": post("/debug/pprof/heap", kind="GET"),
    "somebody's container": post(f"/containers/{THEIRS}/json", kind="GET"),
    "an exec in it": post(f"/containers/{THEIRS}/exec", b'{"Cmd":["sh"]}'),
    "somebody's exec": post(f"/exec/{THEIRS}/start", b"{}"),
    "its files": post(f"/containers/{THEIRS}/archive?path=/", kind="GET"),
    "files into it": post(f"/containers/{THEIRS}/archive?path=/", b"x", kind="PUT"),
    "its file system": post(f"/containers/{THEIRS}/export", kind="GET"),
    "more by an update": post(f"/containers/{OURS}/update", b'{"Privileged":true}'),
    "a device by an update": post(f"/containers/{OURS}/update", b'{"Devices":[{"PathOnHost":"/dev/sda"}]}'),
    "all devices by an update": post(f"/containers/{OURS}/update", b'{"DeviceCgroupRules":["a *:* rwm"]}'),
    "another cgroup by an update": post(f"/containers/{OURS}/update", b'{"CgroupParent":"/"}'),
    "an update in small letters": post(f"/containers/{OURS}/update", b'{"cgroupparent":"/"}'),
    "an update without a limit on swap": post(f"/containers/{OURS}/update", b'{"MemorySwap":-1}'),
    "a privileged exec": post(f"/containers/{OURS}/exec", b'{"Cmd":["sh"],"Privileged":true}'),
    "one in small letters": post(f"/containers/{OURS}/exec", b'{"Cmd":["sh"],"privileged":true}'),
    "one said twice": post(f"/containers/{OURS}/exec", b'{"Privileged":false,"Privileged":true}'),
    "a method in small letters": post(f"/containers/{OURS}/kill", kind="post"),
    "a method in a header": post(
        f"/containers/{THEIRS}/json", b"", "X-HTTP-Method-Override: DELETE", kind="GET"
    ),
    "a path with a full address": post(f"http://x/containers/{THEIRS}/kill"),
    "a path with an encoded slash": post(f"/containers/{OURS}%2f..%2f{THEIRS}/kill"),
    "a path that goes up": post(f"/containers/{OURS}/../{THEIRS}/kill"),
    "a query in the path": post(f"/containers/{OURS}%3ft=1/kill"),
    "a second version": post(f"/v1.41/v1.12/containers/{OURS}/start"),
    "a body that is a list": post(f"/containers/{OURS}/update", b"[]"),
    "a body without end": post(f"/containers/{OURS}/update", b'{"a":' * 100_000),
    "a body of two megabytes": post(f"/containers/{OURS}/update", b'{"a":"' + b"x" * (2 << 20) + b'"}'),
}


@pytest.mark.parametrize("attempt", REFUSED)
async def test_an_attempt_is_refused_and_the_engine_hears_nothing_of_it(door: Door, attempt: str) -> None:
    answer = await door.say(REFUSED[attempt])
    status = int(answer.split(b" ", 2)[1]) if answer else 0
    assert status in (400, 403, 404, 405, 413), answer[:300]
    assert not door.notary.changes
    assert not [body for *_, body in door.notary.asked if body]


async def test_what_is_said_twice_in_a_body_is_read_once_and_written_anew(door: Door) -> None:
    await door.say(post(f"/containers/{OURS}/update", b'{"CpuShares":2,"CpuShares":512}'))
    [(_, _, _, body)] = door.notary.changes
    assert json.loads(body) == {"CpuShares": 512}
    assert body.count(b"CpuShares") == 1
