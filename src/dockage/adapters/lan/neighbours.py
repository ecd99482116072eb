"""LanNeighbours: the Neighbours port over multicast DNS (``zeroconf``, extra ``lan``).

Only while somebody is inside ``use`` does it send or listen at all. What is heard is parsed by
``protocol/adverts.py``; nothing here believes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address

import structlog
from zeroconf import Error, InterfaceChoice, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from dockage.domain.errors import PeerError, Unavailable
from dockage.protocol import adverts
from dockage.protocol.adverts import SERVICE, Advert

log = structlog.get_logger("dockage.lan")

NAMES_MAX = 64
"""Neighbours we remember; a network that shows more makes the oldest go."""
RESOLVE_MS = 1000
TTL = 120
"""Seconds: a node that ended without a goodbye is heard of so long."""


class LanNeighbours:
    """*interfaces*: the IP addresses of those to use; none = all."""

    def __init__(self, interfaces: Sequence[str] = ()) -> None:
        self._interfaces = list(interfaces) or InterfaceChoice.Default
        self._names: dict[str, None] = {}
        self._users, self._turn = 0, asyncio.Lock()
        self._net: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._said: AsyncServiceInfo | None = None

    @asynccontextmanager
    async def use(self) -> AsyncIterator[None]:
        async with self._turn:
            if not self._users:
                await self._start()
            self._users += 1
        try:
            yield
        finally:
            async with self._turn:
                self._users -= 1
                if not self._users:
                    await self._stop()

    async def announce(self, advert: Advert | None) -> None:
        async with self._turn:
            if self._net is None:
                return
            info = _info(advert) if advert is not None and advert.direct else None
            try:
                await self._replace(self._net, info)
            except (Error, OSError) as error:
                raise Unavailable(
                    "lan.silent", f"cannot be announced on the local network: {error}"
                ) from None

    async def heard(self) -> Sequence[Advert]:
        net = self._net
        if net is None:
            return ()
        infos = [AsyncServiceInfo(SERVICE, name) for name in self._names]
        async with asyncio.TaskGroup() as tasks:
            for info in infos:
                if not info.load_from_cache(net.zeroconf):
                    tasks.create_task(_resolve(info, net.zeroconf))
        found = [_advert(info) for info in infos]
        mine = self._said.name if self._said else ""
        return [x for x, info in zip(found, infos, strict=True) if x is not None and info.name != mine]

    # -- the network -----------------------------------------------------------------------------------
    async def _start(self) -> None:
        try:
            self._net = AsyncZeroconf(interfaces=self._interfaces)
            self._browser = AsyncServiceBrowser(self._net.zeroconf, SERVICE, handlers=[self._changed])
        except OSError as error:
            raise Unavailable("lan.silent", f"the local network cannot be listened to: {error}") from None

    async def _stop(self) -> None:
        net, browser = self._net, self._browser
        self._net = self._browser = None
        try:
            if net is not None:
                await self._replace(net, None)
            if browser is not None:
                await browser.async_cancel()
        finally:
            self._names.clear()
            if net is not None:
                await net.async_close()

    async def _replace(self, net: AsyncZeroconf, info: AsyncServiceInfo | None) -> None:
        old, self._said = self._said, info
        if info is None:
            if old is not None:
                await (await net.async_unregister_service(old))
        elif old is None:
            await (await net.async_register_service(info, ttl=TTL, cooperating_responders=True))
        else:
            await (await net.async_update_service(info))

    def _changed(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        if state_change is ServiceStateChange.Removed:
            self._names.pop(name, None)
            return
        self._names[name] = None
        if len(self._names) > NAMES_MAX:
            del self._names[next(iter(self._names))]


async def _resolve(info: AsyncServiceInfo, zeroconf: Zeroconf) -> None:
    await info.async_request(zeroconf, RESOLVE_MS)


def _advert(info: AsyncServiceInfo) -> Advert | None:
    try:
        return adverts.decode(info.name, info.properties)
    except PeerError as error:
        log.debug("lan.refused", code=error.code, why=error.message)
        return None


def _info(advert: Advert) -> AsyncServiceInfo:
    """The addresses are in the TXT record: ours need not share one port, as those of an SRV record do."""
    host, _, port = advert.direct[0].rpartition(":")
    name = adverts.instance(advert.key)
    address = ip_address(host.removeprefix("[").removesuffix("]")).packed
    return AsyncServiceInfo(
        SERVICE,
        name,
        addresses=[address],
        port=int(port),
        properties=adverts.encode(advert),
        server=name.replace(SERVICE, "dockage.local."),
    )
