"""An engine's answer on its way to whoever asked: whole, as it comes, line by line, or as raw bytes both ways.

The tenant's front and the provider's gate are two such relays in a row. The rule: an endless answer is watched from
both sides, so that when the asker leaves, the connection to the engine is closed at once, and the other way round.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

import msgspec

from dockage.domain.errors import DockageError, PeerError, Unavailable
from dockage.ports.peers import Stream

from .frames import PIECE
from .heads import HeaderPairs
from .http import HttpServer, Response

WHOLE = 256 << 10
"""Answers of a known length up to this are taken whole, and the connection is kept."""
LINE_MAX = 1 << 20
LAST_WORDS = 5.0
"""Seconds for the client to close its direction after the engine ended an attached stream."""
SHOWN = ("content-type", "x-docker-container-path-stat")
"""The headers of an engine's answer that reach the client."""
Rewrite = Callable[[Any], Any]


async def pass_on(
    server: HttpServer,
    response: Response,
    headers: HeaderPairs,
    *,
    bodiless: bool = False,
    rewrite: Rewrite | None = None,
    ends: bool = False,
) -> None:
    """*response* with *headers* to the client of *server*; with *rewrite*, each JSON line through it (None leaves
    the line out). *bodiless*: the request was a HEAD. *ends*: it has an end that comes by itself, so a short one is
    sent as a whole, and the connection is kept."""
    length = response.headers.get("content-length")
    known = length.isascii() and length.isdigit()
    if bodiless or response.status in (204, 304) or (rewrite is None and known and int(length) <= WHOLE):
        await server.answer(response.status, headers, await response.read_body(WHOLE))
        return
    framing = [("content-length", length)] if known and rewrite is None else []
    pieces = response.body() if rewrite is None else _rewritten(response.body(), rewrite)
    if ends and not framing:
        first, over = await _begun(pieces)
        if over:
            return await server.answer(response.status, headers, first)
        pieces = _after(first, pieces)
    await stream(server, response.status, [*headers, *framing], pieces)


async def _begun(pieces: AsyncIterator[bytes]) -> tuple[bytes, bool]:
    """The beginning of *pieces*, and whether it is all."""
    first = bytearray()
    async for piece in pieces:
        first += piece
        if len(first) > WHOLE:
            return bytes(first), False
    return bytes(first), True


async def _after(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in pieces:
        yield piece


def ends_by_itself(path: str, query: Mapping[str, str]) -> bool:
    """Logs that are not followed: the one answer of the Engine API whose length is not told although it is short."""
    return path.endswith("/logs") and query.get("follow", "0") in ("", "0", "false")


async def stream(server: HttpServer, status: int, headers: HeaderPairs, pieces: AsyncIterator[bytes]) -> None:
    """An answer that may never end, for as long as the client is there."""

    async def send() -> None:
        # the watch for the client's end may swallow bytes of a next request, so there is none
        await server.respond(status, [*headers, ("connection", "close")])
        async for piece in pieces:
            await server.send(piece)
        await server.end()

    await attended(server, send())


async def attended(server: HttpServer, work: Coroutine[Any, Any, None]) -> None:
    """Run *work* for as long as the client is there: who pressed Ctrl-C wants nothing any more. The request's
    body must have been read."""
    try:
        async with asyncio.TaskGroup() as tasks:
            main = tasks.create_task(work)
            watch = tasks.create_task(server.gone())
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


# -- lines ---------------------------------------------------------------------------------------------
async def _rewritten(pieces: AsyncIterator[bytes], rewrite: Rewrite) -> AsyncIterator[bytes]:
    async for line in json_lines(pieces):
        if (shown := rewrite(line)) is not None:
            yield msgspec.json.encode(shown) + b"\n"


async def json_lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The objects of a stream of JSON lines. Raises PeerError("engine.strange") for anything else."""
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > LINE_MAX:
            raise PeerError("engine.strange", "the engine sent a line without end")
        for line in lines:
            if line.strip():
                yield _decoded(line)
    if rest.strip():
        yield _decoded(rest)


def _decoded(line: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError("engine.strange", f"the engine sent a strange line: {error}") from error


# -- raw bytes -----------------------------------------------------------------------------------------
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
