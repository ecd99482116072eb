"""A real engine, a real room, one lease or two, and a unix socket for each that the stock docker CLI can use."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dockage.adapters.engine.gate import EngineGate
from dockage.adapters.host import DockerHost
from dockage.domain.errors import Unavailable
from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.domain.units import MIB
from dockage.protocol.images import lease_tag
from dockage.wire.splice import SocketStream
from hostlab import CURRENT, GO, IMAGE, SESSION, Lab

LIMITS = Resources(cpu_milli=1000, memory_bytes=256 * MIB, disk_bytes=512 * MIB)


class ClientStream(SocketStream):
    """A local client's socket. A client that closed altogether (and not only its stdin) is gone: over the peer
    link that is a reset, which the gate must see as the end of everything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._poll = select.poll()
        self._poll.register(writer.get_extra_info("socket").fileno(), 0)  # POLLHUP is always reported

    async def read(self, limit: int) -> bytes:
        data = await super().read(limit)
        if not data and self._poll.poll(0):
            raise Unavailable("socket.closed", "the client closed its socket")
        return data


class Tenant:
    """The stock CLI against one lease's gate. The front is a pipe: whatever it refuses, the gate refused."""

    def __init__(self, lease: LeaseId, gate: EngineGate, folder: Path, image: str) -> None:
        self.lease, self.image = lease, image
        self.socket = folder / f"{lease.hex()[:2]}.sock"
        self.gate = gate
        self._served: set[asyncio.Task[None]] = set()
        self._quiet = asyncio.Event()
        here = {"DOCKER_CONFIG": str(folder / "config"), "HOME": str(folder)}
        self._env = {**GO, "PATH": os.environ["PATH"], **here}

    async def __aenter__(self) -> Tenant:
        self._server = await asyncio.start_unix_server(self._accept, self.socket, limit=1 << 18)
        return self

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._served.add(task)
        self._quiet.clear()
        try:
            await self.gate.serve(self.lease, LIMITS, ClientStream(reader, writer))
        except asyncio.CancelledError:
            writer.close()
        finally:
            self._served.discard(task)
            if not self._served:
                self._quiet.set()

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in tuple(self._served):
            task.cancel()
        await asyncio.gather(*self._served, return_exceptions=True)
        await self._server.wait_closed()

    async def quiet(self) -> None:
        """No connection is being served any more."""
        await asyncio.wait_for(self._quiet.wait(), 10)

    async def start(self, *argv: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            "docker",
            "-H",
            f"unix://{self.socket}",
            *argv,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=self._env,
        )

    async def docker(self, *argv: str, stdin: bytes = b"", code: int = 0) -> str:
        """Output and errors together; the exit code must be *code*."""
        out, err = await self.split(*argv, stdin=stdin, code=code)
        return (out + err).decode().strip()

    async def split(self, *argv: str, stdin: bytes = b"", code: int = 0) -> tuple[bytes, bytes]:
        process = await self.start(*argv)
        out, err = await asyncio.wait_for(process.communicate(stdin), 60)
        assert process.returncode == code, f"docker {argv}: {process.returncode}: {out!r} {err!r}"
        return out, err

    async def refused(self, *argv: str) -> str:
        process = await self.start(*argv)
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode not in (0, None), f"docker {argv} was not refused: {out!r}"
        return err.decode()

    async def run(self, *argv: str) -> str:
        """A detached container of the lease's image; *argv* may begin with options."""
        return await self.docker("run", "-d", *self.with_image(*argv))

    def with_image(self, *argv: str) -> list[str]:
        return [self.image if word == "IMAGE" else word for word in argv]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What an engine's version could change is asked of both; all the rest of Debian 12's."""
    if "engine_lab" in metafunc.fixturenames:
        both = metafunc.definition.get_closest_marker("both_engines")
        metafunc.parametrize("engine_lab", ENGINES if both else ENGINES[:1], indirect=True, scope="session")


ENGINES = ("own", "current")


@pytest.fixture(scope="session")
def engine_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    if request.param == "current" and not CURRENT.exists():
        pytest.skip("no current engine: run script/setup")
    with Lab.opened(f"e{request.param[0]}", CURRENT if request.param == "current" else None) as lab:
        yield lab


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short (a socket's path has 108 bytes at most) and on a disk (volumes are mounted there)."""
    found = Path(tempfile.mkdtemp(prefix="dkh-home-"))
    yield found
    shutil.rmtree(found)


@pytest.fixture
async def host(lab: Lab, folder: Path) -> AsyncIterator[DockerHost]:
    host = DockerHost(lab.socket, folder / "home", "run-1", disk_every=0.2)
    await host.start()
    yield host
    for lease in await host.present():
        await host.teardown(lease)
    await host.close()


@pytest.fixture
async def gate(lab: Lab, host: DockerHost) -> AsyncIterator[EngineGate]:
    gate = EngineGate(lab.socket, host)
    yield gate
    await gate.close()


@contextlib.asynccontextmanager
async def renting(
    number: int, lab: Lab, host: DockerHost, gate: EngineGate, folder: Path
) -> AsyncIterator[Tenant]:
    """A lease with the base image in it."""
    image = lab.docker("image", "inspect", "-f", "{{.Id}}", IMAGE)
    lease = LeaseId(bytes([number]) + SESSION)
    await host.prepare(lease, LIMITS)
    lab.docker("tag", IMAGE, lease_tag(lease, image))
    async with Tenant(lease, gate, folder, image) as tenant:
        yield tenant


@pytest.fixture
async def ours(lab: Lab, host: DockerHost, gate: EngineGate, folder: Path) -> AsyncIterator[Tenant]:
    async with renting(0xA1, lab, host, gate, folder) as tenant:
        yield tenant


@pytest.fixture
async def theirs(lab: Lab, host: DockerHost, gate: EngineGate, folder: Path) -> AsyncIterator[Tenant]:
    """Another lease of the same engine, given the same image; only where a test is about two: each costs some
    seconds."""
    async with renting(0xB2, lab, host, gate, folder) as tenant:
        yield tenant
