"""A tenant's checked request at the provider's engine, and the engine's answer to the tenant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlencode

import msgspec

from dockage.protocol.docker.names import scrub
from dockage.protocol.docker.refusal import Refused
from dockage.wire import relay
from dockage.wire.http import HttpClient, Response
from dockage.wire.relay import SHOWN, Rewrite, both_ways

from .exchange import Exchange

PATIENCE = 3700.0
"""Seconds until an answer begins: ``stop?t=3600`` takes its time."""


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
    except (msgspec.MsgspecError, UnicodeDecodeError, LookupError, TypeError):
        return body.decode(errors="replace") or response.headers.get("x-docker-container-path-stat")


async def pass_on(exchange: Exchange, response: Response, rewrite: Rewrite | None = None) -> None:
    bodiless = exchange.request.method == "HEAD"
    ends = relay.ends_by_itself(exchange.match.route.path, exchange.query)
    shown = _shown(response)
    await relay.pass_on(exchange.server, response, shown, bodiless=bodiless, rewrite=rewrite, ends=ends)


def _shown(response: Response) -> list[tuple[str, str]]:
    return [pair for pair in response.headers if pair[0] in SHOWN]


async def hijack(exchange: Exchange, path: str, query: dict[str, str], body: bytes | None) -> None:
    """An attached stream. A client that did not ask for an upgrade gets a plain endless answer, as from the
    engine itself."""
    upgrade = (("connection", "Upgrade"), ("upgrade", "tcp")) if exchange.request.wants_upgrade else ()
    kind = (("content-type", "application/json"),) if body is not None else ()
    async with exchange.engine.connected() as client:
        response = await ask(exchange, client, path, query=query, headers=(*upgrade, *kind), body=body)
        if response.upgraded is None:
            await pass_on(exchange, response)
        else:
            await both_ways(await exchange.server.upgrade(_shown(response)), response.upgraded)


async def upload(exchange: Exchange, path: str) -> None:
    """The request's body as it comes, with its length if it has one."""
    given = exchange.request.headers
    kept = tuple((name, given.get(name)) for name in ("content-type", "content-length") if given.get(name))
    async with exchange.engine.connected() as client:
        response = await ask(exchange, client, path, headers=kept, body=exchange.server.body())
        await pass_on(exchange, response)
