"""Asks the DNS whose a tenant's own domain is, before a gateway serves it (``domain/ownership.py``).

What was found is kept, bounded: a refusal for a moment, a proof for some minutes, and for a day while the resolver is
silent. No resolver, no domains but the gateway's.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from dockage.domain.deployment import Document, long_name
from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.identity import NodeKey
from dockage.domain.ownership import (
    HOPS_MAX,
    leads_to,
    own_hosts,
    proof_names,
    proof_text,
    told_keys,
)
from dockage.domain.reason import TEXT_MAX, Reason
from dockage.domain.units import HOUR, MINUTE, SECOND, Duration, Instant, after
from dockage.ports.hosting import Resolver
from dockage.ports.machine import Clock

log = structlog.get_logger("dockage.gateway")

PROVEN_FOR, REFUSED_FOR = Duration(10 * MINUTE), Duration(10 * SECOND)
SILENT_FOR = Duration(24 * HOUR)
"""How long a proof counts while the resolver does not answer: as long as a document lasts at most."""
KEPT_MAX = 8192
"""Pairs of a host and a tenant."""
ASKED_MAX = 16
"""Hosts that are looked up at one time, of all tenants."""
SHOWN_MAX = 80
"""Of a name that others have made."""
PROVE_SEC = 6.0
"""For all hosts of a document; the tenant waits. What was found until then is kept."""


class Found(NamedTuple):
    lack: str | None
    """What stands there instead, for people; None: it is proven."""
    at: Instant


class Ownership:
    def __init__(self, resolver: Resolver | None, zone: str, clock: Clock) -> None:
        self._resolver, self._zone, self._clock = resolver, zone, clock
        self._found = OrderedDict[tuple[str, NodeKey], Found]()
        self._asking = asyncio.Semaphore(ASKED_MAX)

    async def lacking(self, document: Document) -> Mapping[str, Reason]:
        """The hosts that are not to be served, and why ("site.unproven" | "site.resolver"): the others are no worse
        for them. Raises UsageError("site.no-own-domains")."""
        hosts = own_hosts(document, self._zone)
        lacks = {host: _unknown(host) for host in hosts if not self._was_proven(host, document.tenant)}
        with suppress(TimeoutError):
            async with asyncio.timeout(PROVE_SEC):
                for host in hosts:
                    await self._look(host, document, lacks)
        return lacks

    def remember(self, document: Document) -> None:
        """Served before this process began, so its hosts were proven: they last a day, and are asked for soon."""
        for host in own_hosts(document, self._zone):
            self._keep(host, document.tenant, Found(None, Instant(self._clock.now() - PROVEN_FOR)))

    async def _look(self, host: str, document: Document, lacks: dict[str, Reason]) -> None:
        """Takes *host* out of *lacks*, or says there what is missing."""
        try:
            lack = await self._lack(host, document.tenant)
        except Unavailable as error:
            log.info("gateway.resolver", host=host, why=error.message)
            return
        if lack is None:
            lacks.pop(host, None)
            return
        record = f'{proof_names(host)[0]} TXT "{proof_text(document.tenant)}"{self._alias(host, document)}'
        why = Reason("site.unproven", f"nothing says that {host} is yours{lack}: set the record {record}")
        lacks[host] = replace(why, text=why.text[:TEXT_MAX])

    def _alias(self, host: str, document: Document) -> str:
        if not self._zone:
            return ""
        return f", or {host} CNAME {long_name(document.name, document.tenant, self._zone)}"

    async def _lack(self, host: str, tenant: NodeKey) -> str | None:
        if self._resolver is None:
            raise UsageError(
                "site.no-own-domains",
                f"this gateway serves names of its zone only, not {host}: its operator has set no gateway.resolver",
            )
        found = self._found.get((host, tenant))
        if found is not None and self._lasts(found, PROVEN_FOR if found.lack is None else REFUSED_FOR):
            return found.lack
        try:
            async with self._asking:
                lack = await self._ask(self._resolver, host, tenant)
        except Unavailable:
            if self._was_proven(host, tenant):
                return None
            raise
        self._keep(host, tenant, Found(lack, self._clock.now()))
        return lack

    async def _ask(self, resolver: Resolver, host: str, tenant: NodeKey) -> str | None:
        for name in proof_names(host):
            keys = told_keys(await resolver.texts(name))
            if keys:
                is_ours = proof_text(tenant).partition("=")[2] in keys
                return None if is_ours else f" ({name[:SHOWN_MAX]} TXT names another key)"
        name = host
        for _ in range(HOPS_MAX):
            target = await resolver.alias(name)
            if target is not None and leads_to(target, tenant, self._zone):
                return None
            if target is None:
                break
            name = target
        return f" (it is a CNAME of {name[:SHOWN_MAX]})" if name != host else ""

    def _was_proven(self, host: str, tenant: NodeKey) -> bool:
        """Not so long ago that it does not count while the resolver is silent."""
        found = self._found.get((host, tenant))
        return found is not None and found.lack is None and self._lasts(found, SILENT_FOR)

    def _lasts(self, found: Found, time: Duration) -> bool:
        return self._clock.now() < after(found.at, time)

    def _keep(self, host: str, tenant: NodeKey, found: Found) -> None:
        self._found[host, tenant] = found
        self._found.move_to_end((host, tenant))
        if len(self._found) > KEPT_MAX:
            self._found.popitem(last=False)


def _unknown(host: str) -> Reason:
    return Reason("site.resolver", f"the DNS does not say now whose {host} is")
