"""The engine's answer on its way to the tenant: whole, as it comes, line by line, or as raw bytes both ways.

Every endless answer is watched from both sides: when the tenant leaves, the engine's connection is closed at
once, and the other way round.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import msgspec

from dockage.domain.errors import DockageError, Unavailable
from dockage.ports import Stream
from dockage.protocol.docker.names import scrub
from dockage.protocol.docker.refusal import Refused
from dockage.wire.engine import unreachable
from dockage.wire.frames import PIECE
from dockage.wire.http import HttpClient, Response
from dockage.wire.splice import SocketStream

from .exchange import Exchange

CONNECT = 5.0
PATIENCE = 3700.0
"""Seconds until an answer begins: ``stop?t=3600`` takes its time."""
WHOLE = 256 << 10
"""Answers of a known length up to this are taken whole, and the connection is kept."""
LINE_MAX = 1 << 20
LAST_WORDS = 5.0
"""Seconds for the tenant to close its direction after the engine ended an attached stream."""
SHOWN = ("content-type", "x-docker-container-path-stat")
Rewrite = Callable[[Any], Any]


@asynccontextmanager
async def connected(exchange: Exchange) -> AsyncIterator[HttpClient]:
    """A connection of its own to the engine, closed at the end whatever happens."""
    try:
        async with asyncio.timeout(CONNECT):
            reader, writer = await asyncio.open_unix_connection(str(exchange.socket), limit=PIECE)
    except (OSError, TimeoutError) as error:
        raise unreachable(exchange.socket, error) from error
    stream = SocketStream(reader, writer)
    try:
        yield HttpClient(stream)
    finally:
        stream.abort()


async def ask(
    exchange: Exchange,
    client: HttpClient,
    path: str,
    *,
    query: dict[str, str] | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    body: bytes | AsyncIterator[bytes] | None = None,
) -> Response:
    """Raises Refused with the engine's scrubbed words for any status from 400 on."""
    version = await exchange.engine.prefix()
    pairs = exchange.query if query is None else query
    target = version + path + ("?" + urlencode(pairs) if pairs else "")
    async with asyncio.timeout(None if body and not isinstance(body, bytes) else PATIENCE):
        response = await client.request(exchange.request.method, target, headers, body)
    if response.status >= 400:
        raise Refused(response.status, scrub(exchange.lease, await _message(response)))
    return response


async def _message(response: Response) -> str:
    body = await response.read_body(64 << 10)
    try:
        return str(msgspec.json.decode(body)["message"])
    except (msgspec.MsgspecError, LookupError, TypeError):
        return body.decode(errors="replace") or response.headers.get("x-docker-container-path-stat")


async def pass_on(exchange: Exchange, response: Response, rewrite: Rewrite | None = None) -> None:
    """The answer to the tenant; with *rewrite*, each JSON line through it (None leaves the line out)."""
    headers = [pair for pair in response.headers if pair[0] in SHOWN]
    length = response.headers.get("content-length")
    bodiless = exchange.request.method == "HEAD" or response.status in (204, 304)
    if bodiless or (rewrite is None and length and int(length) <= WHOLE):
        body = await response.read_body(WHOLE)
        await exchange.server.answer(response.status, headers, body)
        return
    framing = [("content-length", length)] if length and rewrite is None else []
    await attended(exchange, _stream(exchange, response, [*headers, *framing], rewrite))


async def _stream(
    exchange: Exchange, response: Response, headers: list[tuple[str, str]], rewrite: Rewrite | None
) -> None:
    # the watch for the tenant's end may swallow bytes of a next request, so there is none
    await exchange.server.respond(response.status, [*headers, ("connection", "close")])
    pieces = response.body() if rewrite is None else _lines(response.body(), rewrite)
    async for piece in pieces:
        await exchange.server.send(piece)
    await exchange.server.end()


async def _lines(pieces: AsyncIterator[bytes], rewrite: Rewrite) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > LINE_MAX:
            raise Unavailable("engine.strange", "the engine sent a line without end")
        for line in lines:
            yield _line(line, rewrite)
    yield _line(rest, rewrite)


def _line(line: bytes, rewrite: Rewrite) -> bytes:
    if not line.strip():
        return b""
    shown = rewrite(msgspec.json.decode(line))
    return b"" if shown is None else msgspec.json.encode(shown) + b"\n"


async def attended(exchange: Exchange, work: Coroutine[Any, Any, None]) -> None:
    """Run *work* for as long as the tenant is there."""
    try:
        async with asyncio.TaskGroup() as tasks:
            main = tasks.create_task(work)
            watch = tasks.create_task(exchange.server.gone())
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


async def hijack(exchange: Exchange, path: str, query: dict[str, str], body: bytes | None) -> None:
    """An attached stream. A client that did not ask for an upgrade gets a plain endless answer, as from the
    engine itself."""
    upgrade = (("connection", "Upgrade"), ("upgrade", "tcp")) if exchange.request.wants_upgrade else ()
    kind = (("content-type", "application/json"),) if body is not None else ()
    async with connected(exchange) as client:
        response = await ask(exchange, client, path, query=query, headers=(*upgrade, *kind), body=body)
        if response.upgraded is None:
            await pass_on(exchange, response)
            return
        headers = [pair for pair in response.headers if pair[0] in SHOWN]
        await raw(await exchange.server.upgrade(headers), response.upgraded)


async def raw(tenant: Stream, engine: Stream) -> None:
    """Both directions byte for byte, each ending on its own. When the engine has said all, it is over."""
    try:
        async with asyncio.TaskGroup() as tasks:
            stdin = tasks.create_task(_pump(tenant, engine))
            await _pump(engine, tenant)
            await asyncio.wait((stdin,), timeout=LAST_WORDS)
            stdin.cancel()
    except BaseExceptionGroup as group:
        error = only(group)
        if not isinstance(error, Unavailable):
            raise error from None
    finally:
        engine.abort()
        tenant.abort()


async def _pump(source: Stream, sink: Stream) -> None:
    while piece := await source.read(PIECE):
        await sink.write(piece)
    await sink.finish()


async def upload(exchange: Exchange, path: str) -> None:
    """The request's body as it comes, with its length if it has one."""
    given = exchange.request.headers
    kept = tuple((name, given.get(name)) for name in ("content-type", "content-length") if given.get(name))
    async with connected(exchange) as client:
        response = await ask(exchange, client, path, headers=kept, body=exchange.server.body())
        await pass_on(exchange, response)
