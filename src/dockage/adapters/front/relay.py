"""The client's request at the engine of a lease, and the engine's answer to the client."""

from __future__ import annotations

from collections.abc import AsyncIterator

from dockage.domain.identity import LeaseId
from dockage.wire.relay import SHOWN, Rewrite, both_ways, ends_by_itself, pass_on

from .call import HEADERS, Call
from .engines import LeaseEngines, target


async def relay(
    call: Call,
    engines: LeaseEngines,
    lease: LeaseId,
    path: str,
    *,
    body: bytes | AsyncIterator[bytes] | None = None,
    rewrite: Rewrite | None = None,
) -> int:
    """Returns the status."""
    where, headers = target(path, call.query), _headers(call, body)
    async with engines.asked(lease, call.request.method, where, headers, body) as response:
        shown = [pair for pair in response.headers if pair[0] in SHOWN]
        if response.upgraded is not None:
            await both_ways(await call.server.upgrade(shown), response.upgraded)
        else:
            bodiless = call.request.method == "HEAD"
            ends = ends_by_itself(path, call.query)
            headers = [*shown, *HEADERS]
            await pass_on(call.server, response, headers, bodiless=bodiless, rewrite=rewrite, ends=ends)
        return response.status


def _headers(call: Call, body: bytes | AsyncIterator[bytes] | None) -> list[tuple[str, str]]:
    kept = ["content-type"] if body is not None else []
    kept += ["content-length"] if body is not None and not isinstance(body, bytes) else []
    given = call.request.headers
    headers = [(name, given.get(name)) for name in kept if given.get(name)]
    if call.request.wants_upgrade:
        headers += [("connection", "Upgrade"), ("upgrade", given.get("upgrade"))]
    return headers
