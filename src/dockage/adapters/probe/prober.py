"""``ports.Prober`` over the Docker API of our own lease: reads containers by exec, works in one of its own.

The app is not touched: a ``cat`` in its container, and a container beside it that is gone after a second. The
rule: whatever cannot be read is unknown, never a finding.
"""

from __future__ import annotations

import asyncio
import io
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import resources
from typing import IO, Any
from urllib.parse import urlencode

import msgspec

from dockage.domain.checks import Beside, Counted, Look, Probe
from dockage.domain.errors import PeerError, Unavailable
from dockage.domain.identity import LeaseId
from dockage.domain.units import MILLISECOND, SECOND, Instant
from dockage.ports.peers import Stream
from dockage.protocol import cgroupfiles, probe
from dockage.protocol.images import Layer, Manifest
from dockage.wire.http import HttpClient, Response

OpenStream = Callable[[LeaseId], Awaitable[Stream]]
SendImage = Callable[[LeaseId, probe.Image], Awaitable[None]]

NAME = "dockage-probe"
"""Beginning of the container's name; it carries PROBE_LABEL, too."""
PROBE_LABEL = "dockage.probe"
ANSWER_MAX = 1 << 20
EXEC_NS = 20 * MILLISECOND
"""CPU of one exec, and ``START_NS`` of one start, as measured (metering.md §1.3): what a look is said to cost."""
START_NS = 60 * MILLISECOND
CONTAINERS_MAX = 16
"""A lease with more is looked at without its counters: each costs an exec."""
STREAM_HEAD = 8


class ProbeImage:
    """Where the probe's image comes from when it is sent: nowhere but this program."""

    def __init__(self, image: probe.Image) -> None:
        self._image = image

    async def manifest(self, reference: str) -> Manifest:
        return self._image.manifest

    def open(self, layer: Layer) -> IO[bytes]:
        return io.BytesIO(self._image.layer)

    async def tidy(self) -> None:
        """Nothing is kept."""


class LeaseProber:
    """*program* is the probe for the processor of the providers; without one only counters are read."""

    def __init__(
        self,
        engine: OpenStream,
        send: SendImage,
        program: bytes | None,
        architecture: str,
        now: Callable[[], float],
    ) -> None:
        self._engine, self._send, self._now = engine, send, now
        self._image = probe.image(program, architecture) if program else None

    async def look(
        self, lease: LeaseId, since: Instant, until: Instant, touch_bytes: int, processes: int
    ) -> Look:
        await self._tidy(lease)
        before, complete = await self._count(lease)
        worked, after = None, before
        if self._image is not None:
            began = self._now()
            told = await self._work(lease, self._image, touch_bytes, processes)
            wall = round((self._now() - began) * SECOND)
            after, again = await self._count(lease)
            known = complete and again and _same(before, after)
            shares = sum(c.shares for c in after)
            beside = Beside(_cpu(after) - _cpu(before), wall, shares) if known else None
            worked = Probe(told.wall_ns, told.cpu_ns, told.work, told.touch_ns, beside)
        churned = until > since and await self._churned(lease, since, until)
        cost = EXEC_NS * (len(before) + len(after)) + (START_NS + worked.cpu_ns if worked else 0)
        return Look(before, complete and not churned, worked, cost)

    # -- counting --------------------------------------------------------------------------------------
    async def _count(self, lease: LeaseId) -> tuple[tuple[Counted, ...], bool]:
        """What can be read, and whether that is all."""
        listed = await self._ask(lease, "GET", "/containers/json")
        ids = sorted(str(x["Id"]) for x in listed if PROBE_LABEL not in (x.get("Labels") or {}))
        if len(ids) > CONTAINERS_MAX:
            return (), False
        read = await asyncio.gather(*(self._read(lease, id_) for id_ in ids))
        found = tuple(x for x in read if x is not None)
        return found, len(found) == len(ids)

    async def _read(self, lease: LeaseId, id_: str) -> Counted | None:
        doc = await self._ask(lease, "GET", f"/containers/{id_}/json")
        if not doc["State"].get("Running") or doc["State"].get("Paused"):
            return None
        body = {"AttachStdout": True, "AttachStderr": False, "Cmd": ["cat", *cgroupfiles.FILES]}
        made = await self._ask(lease, "POST", f"/containers/{id_}/exec", body)
        counters = cgroupfiles.read((await self._output(lease, str(made["Id"]))).decode(errors="replace"))
        if counters is None:
            return None  # no ``cat`` in there, or no files of its own
        started, shares = str(doc["State"].get("StartedAt", "")), doc["HostConfig"].get("CpuShares") or 1024
        return Counted(id_, started, counters.cpu_ns, counters.memory_bytes, int(shares))

    async def _output(self, lease: LeaseId, execution: str) -> bytes:
        async with self._connected(lease) as client:
            headers = (
                ("content-type", "application/json"),
                ("connection", "Upgrade"),
                ("upgrade", "tcp"),
            )
            body = msgspec.json.encode({"Detach": False, "Tty": False})
            response = await client.request("POST", f"/exec/{execution}/start", headers, body)
            if response.status >= 400:
                return b""
            return unframed(await _rest(response))

    async def _churned(self, lease: LeaseId, since: Instant, until: Instant) -> bool:
        """Whether a container of the tenant's began or ended meanwhile: its use is in the bill, not in our counts."""
        query = {
            "since": _seconds(since),
            "until": _seconds(until),
            "filters": '{"type":["container"],"event":["start","die"]}',
        }
        async with self._connected(lease) as client:
            response = await client.request("GET", "/events?" + urlencode(query))
            lines = (await response.read_body(ANSWER_MAX)).splitlines()
        if response.status >= 400:
            return True
        events = [msgspec.json.decode(line) for line in lines if line.strip()]
        return any(PROBE_LABEL not in (event["Actor"].get("Attributes") or {}) for event in events)

    # -- working ---------------------------------------------------------------------------------------
    async def _work(self, lease: LeaseId, image: probe.Image, touch_bytes: int, processes: int) -> probe.Told:
        seed = secrets.token_hex(16)
        body = {
            "Image": image.manifest.image,
            "Cmd": probe.command(seed, touch_bytes, processes),
            "Labels": {PROBE_LABEL: "1"},
            "HostConfig": {"NetworkMode": "none"},
        }
        path = f"/containers/create?name={NAME}-{secrets.token_hex(4)}"
        status, made = await self._try(lease, "POST", path, body)
        if status == 404:  # the first look at this lease
            await self._send(lease, image)
            status, made = await self._try(lease, "POST", path, body)
        if status >= 400:
            raise Unavailable("probe.refused", f"the lease does not take a probe: {_words(made)}")
        try:
            await self._ask(lease, "POST", f"/containers/{made['Id']}/start")
            ended = await self._ask(lease, "POST", f"/containers/{made['Id']}/wait")
            if ended.get("StatusCode"):
                raise Unavailable("probe.died", f"the probe ended with code {ended['StatusCode']}")
            async with self._connected(lease) as client:
                response = await client.request("GET", f"/containers/{made['Id']}/logs?stdout=1")
                return probe.read(unframed(await response.read_body(ANSWER_MAX)), seed, processes)
        finally:
            await self._try(lease, "DELETE", f"/containers/{made['Id']}?force=1")

    async def _tidy(self, lease: LeaseId) -> None:
        """What an interrupted look left behind."""
        left = await self._ask(lease, "GET", "/containers/json?all=1")
        for item in left:
            if PROBE_LABEL in (item.get("Labels") or {}):
                await self._try(lease, "DELETE", f"/containers/{item['Id']}?force=1")

    # -- asking ----------------------------------------------------------------------------------------
    async def _ask(self, lease: LeaseId, method: str, path: str, body: object = None) -> Any:
        status, doc = await self._try(lease, method, path, body)
        if status >= 400:
            raise Unavailable(
                "probe.refused", f"the lease's engine refused {method} {path[:80]}: {_words(doc)}"
            )
        return doc

    async def _try(self, lease: LeaseId, method: str, path: str, body: object = None) -> tuple[int, Any]:
        async with self._connected(lease) as client:
            headers = (("content-type", "application/json"),) if body is not None else ()
            data = msgspec.json.encode(body) if body is not None else None
            response = await client.request(method, path, headers, data)
            answer = await response.read_body(ANSWER_MAX)
        try:
            return response.status, msgspec.json.decode(answer) if answer.strip() else {}
        except msgspec.DecodeError:
            raise PeerError("engine.strange", "the provider's engine answered something else") from None

    @asynccontextmanager
    async def _connected(self, lease: LeaseId) -> AsyncIterator[HttpClient]:
        stream = await self._engine(lease)
        try:
            yield HttpClient(stream)
        finally:
            stream.abort()


async def _rest(response: Response) -> bytes:
    """Of an exec: raw after an upgrade, else the body."""
    if response.upgraded is None:
        return await response.read_body(ANSWER_MAX)
    pieces: list[bytes] = []
    while (piece := await response.upgraded.read(1 << 16)) and sum(map(len, pieces)) < ANSWER_MAX:
        pieces.append(piece)
    return b"".join(pieces)


def unframed(data: bytes) -> bytes:
    """The payload of Docker's stream frames: kind, three zeros, length (Engine API, attach)."""
    out = bytearray()
    while len(data) >= STREAM_HEAD:
        size = int.from_bytes(data[4:STREAM_HEAD], "big")
        if data[0] == 1:
            out += data[STREAM_HEAD : STREAM_HEAD + size]
        data = data[STREAM_HEAD + size :]
    return bytes(out)


def _same(before: tuple[Counted, ...], after: tuple[Counted, ...]) -> bool:
    return [(c.container, c.started) for c in before] == [(c.container, c.started) for c in after]


def _cpu(counted: tuple[Counted, ...]) -> int:
    return sum(c.cpu_ns for c in counted)


def _seconds(instant: Instant) -> str:
    return f"{instant // 1_000_000_000}.{instant % 1_000_000_000:09d}"


def _words(doc: Any) -> str:
    return str(doc.get("message", ""))[:200] if isinstance(doc, dict) else ""


def program(architecture: str) -> bytes | None:
    """The probe for this processor; None where we have none."""
    file = resources.files(__package__).joinpath(f"probe.{architecture}")
    return file.read_bytes() if file.is_file() else None
