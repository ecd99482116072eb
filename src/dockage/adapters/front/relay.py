"""An engine's answer on its way to the client: whole, as it comes, line by line, or raw bytes both ways.

Endless answers are watched from both sides: when the client leaves, the lease's stream is closed at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import msgspec

from dockage.domain.errors import DockageError, PeerError, Unavailable
from dockage.domain.identity import LeaseId
from dockage.ports import Stream
from dockage.wire.frames import PIECE
from dockage.wire.http import HeaderPairs, Response

from .call import HEADERS, Call
from .engines import LeaseEngines, target

WHOLE = 256 << 10
"""Answers of a known length up to this are taken whole, and the client's connection is kept."""
LINE_MAX = 1 << 20
LAST_WORDS = 5.0
"""Seconds for the client to close its direction after the engine said all."""
SHOWN = ("content-type", "x-docker-container-path-stat")
Rewrite = Callable[[Any], Any]


async def relay(
    call: Call,
    engines: LeaseEngines,
    lease: LeaseId,
    path: str,
    *,
    body: bytes | AsyncIterator[bytes] | None = None,
    rewrite: Rewrite | None = None,
) -> int:
    """The client's request at the engine of *lease*, its answer to the client; returns the status."""
    async with engines.connected(lease) as client:
        headers = _headers(call, body)
        response = await client.request(call.request.method, target(path, call.query), headers, body)
        shown = [pair for pair in response.headers if pair[0] in SHOWN] + list(HEADERS)
        if response.upgraded is not None:
            await both_ways(await call.server.upgrade(shown), response.upgraded)
        else:
            await _pass_on(call, response, shown, rewrite)
        return response.status


def _headers(call: Call, body: bytes | AsyncIterator[bytes] | None) -> list[tuple[str, str]]:
    kept = ["content-type"] if body is not None else []
    kept += ["content-length"] if body is not None and not isinstance(body, bytes) else []
    given = call.request.headers
    headers = [(name, given.get(name)) for name in kept if given.get(name)]
    if call.request.wants_upgrade:
        headers += [("connection", "Upgrade"), ("upgrade", given.get("upgrade"))]
    return headers


async def _pass_on(
    call: Call, response: Response, headers: list[tuple[str, str]], rewrite: Rewrite | None
) -> None:
    length = response.headers.get("content-length")
    bodiless = call.request.method == "HEAD" or response.status in (204, 304)
    if bodiless or (rewrite is None and length.isdigit() and int(length) <= WHOLE):
        await call.server.answer(response.status, headers, await response.read_body(WHOLE))
        return
    framing = [("content-length", length)] if length and rewrite is None else []
    pieces = response.body() if rewrite is None else _lines(response.body(), rewrite)
    await stream(call, response.status, [*headers, *framing], pieces)


async def stream(call: Call, status: int, headers: HeaderPairs, pieces: AsyncIterator[bytes]) -> None:
    """An answer that may never end, for as long as the client is there."""

    async def send() -> None:
        # the watch for the client's end may swallow bytes of a next request, so there is none
        await call.server.respond(status, [*headers, ("connection", "close")])
        async for piece in pieces:
            await call.server.send(piece)
        await call.server.end()

    await attended(call, send())


async def attended(call: Call, work: Coroutine[Any, Any, None]) -> None:
    """Run *work* for as long as the client is there: who pressed Ctrl-C wants no lease any more. The request's
    body must have been read."""
    try:
        async with asyncio.TaskGroup() as tasks:
            main = tasks.create_task(work)
            watch = tasks.create_task(call.server.gone())
            await asyncio.wait((main, watch), return_when=asyncio.FIRST_COMPLETED)
            main.cancel()
            watch.cancel()
    except BaseExceptionGroup as group:
        raise only(group) from None


def only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """A group of our own errors is one of them; with anything else in it, it stays what it is: a bug."""
    ours, others = group.split(DockageError)
    if ours is None or others is not None:
        return group
    first = ours.exceptions[0]
    return only(first) if isinstance(first, BaseExceptionGroup) else first


async def _lines(pieces: AsyncIterator[bytes], rewrite: Rewrite) -> AsyncIterator[bytes]:
    async for line in json_lines(pieces):
        yield msgspec.json.encode(rewrite(line)) + b"\n"


async def json_lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    """The objects of a stream of JSON lines. Raises PeerError for anything else."""
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > LINE_MAX:
            raise PeerError("engine.strange", "the provider's engine sent a line without end")
        for line in lines:
            if line.strip():
                yield _decoded(line)
    if rest.strip():
        yield _decoded(rest)


def _decoded(line: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise PeerError("engine.strange", f"the provider's engine sent a strange line: {error}") from error


async def both_ways(client: Stream, engine: Stream) -> None:
    """Byte for byte, each direction ending on its own. When the engine has said all, it is over: a client that
    still types into a container which ended would wait for ever."""
    try:
        async with asyncio.TaskGroup() as tasks:
            upload = tasks.create_task(_upload(client, engine))
            await _pump(engine, client)
            await asyncio.wait((upload,), timeout=LAST_WORDS)
            upload.cancel()
    except* Unavailable:
        pass  # a cut connection is an ordinary end
    finally:
        engine.abort()
        client.abort()


async def _upload(client: Stream, engine: Stream) -> None:
    while piece := await client.read(PIECE):  # raises if the client is gone, which ends both directions
        try:
            await engine.write(piece)
        except Unavailable:
            return  # the engine wants no more; what it still says goes the other way
    try:
        await engine.finish()
    except Unavailable:
        pass


async def _pump(source: Stream, sink: Stream) -> None:
    while piece := await source.read(PIECE):
        await sink.write(piece)
    await sink.finish()
