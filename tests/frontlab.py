"""The stock docker CLI and compose against a front, and small helpers of the front's tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import DEV
from dockage.adapters.front.front import DockerFront
from dockage.testing.leases import FakeLeases
from hostlab import GO

CLIS = {"debian": Path("/usr/bin/docker"), "current": DEV / "current-engine" / "docker"}
"""Both generations of the stock CLI: Debian 12's, of 2021, and a current one."""
LIMITS = ("--memory", "64m", "--cpus", "0.5")
"""Small, so that many fit into a lease."""


def cli_of(generation: str) -> str:
    """Its program; the test is skipped where script/setup could not get it."""
    program = CLIS[generation]
    if not program.exists():
        pytest.skip(f"no {program}: run script/setup")
    return str(program)


@dataclass
class Result:
    code: int
    out: str
    err: str


class Tenant:
    """The stock CLI against the front, and the front itself, which a test may stop and start again."""

    linger = 0.1
    """Seconds that an empty deployment keeps its lease; from the next start on."""

    def __init__(
        self, front: Callable[[], DockerFront], socket: Path, leases: FakeLeases, env: dict[str, str]
    ):
        self._front, self.socket, self.leases, self.env = front, socket, leases, {**GO, **env}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        front = self.front = self._front()
        self._task = asyncio.create_task(front.serve())
        ready = asyncio.create_task(front.ready.wait())
        await asyncio.wait((self._task, ready), timeout=20, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            self._task.result()
        assert ready.done()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def process(self, *argv: str, program: str = "docker") -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            program, *argv, stdin=pipe, stdout=pipe, stderr=pipe, env=self.env
        )

    async def tried(self, *argv: str, stdin: bytes = b"", program: str = "docker") -> Result:
        process = await self.process(*argv, program=program)
        try:
            out, err = await asyncio.wait_for(process.communicate(stdin), 60)
        except TimeoutError:
            process.kill()
            out, err = await process.communicate()
            raise AssertionError(f"{argv} hangs: {out!r} {err!r}") from None
        return Result(process.returncode or 0, out.decode().strip(), err.decode().strip())

    async def docker(self, *argv: str, stdin: bytes = b"") -> str:
        """Its standard output; it must succeed."""
        result = await self.tried(*argv, stdin=stdin)
        assert result.code == 0, f"docker {' '.join(argv)}: {result}"
        return result.out

    async def refused(self, *argv: str) -> str:
        result = await self.tried(*argv)
        assert result.code != 0, f"docker {' '.join(argv)} was not refused: {result}"
        return result.err

    async def run(self, *argv: str) -> str:
        """A detached container's id; *argv* may begin with options."""
        return await self.docker("run", "-d", *LIMITS, *argv)

    async def inspect(self, ref: str) -> dict[str, Any]:
        [found] = json.loads(await self.docker("inspect", ref))
        assert isinstance(found, dict)
        return found


async def until(check: Callable[[], Awaitable[bool]] | Callable[[], bool]) -> None:
    for _ in range(200):
        found = check()
        if found if isinstance(found, bool) else await found:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come true within 10 s")


SITE = "mkdir -p /www && echo hello > /www/index.html && exec httpd -f -p 80 -h /www"


async def fetch(port: int, host: str = "127.0.0.1") -> str:
    """As an HTTP client that half-closes after its request."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer.decode()


async def serves(port: int) -> bool:
    try:
        return "hello" in await fetch(port)
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def closed(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False
