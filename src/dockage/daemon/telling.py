"""One deployment at one gateway: its document is told whenever it changes, and what the gateway sees is heard.

Counterpart: ``ingress.py`` at the gateway. The rules: each document has a higher epoch than the one before, also over
restarts; what a gateway says counts only for replicas that it was told of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from dockage.domain.deployment import OWN, Document, Replica, Site, without
from dockage.domain.errors import DockageError, UsageError
from dockage.domain.identity import NodeKey, short
from dockage.domain.reason import Reason
from dockage.domain.units import HOUR, SECOND, Duration, Instant, after
from dockage.ports.machine import Clock
from dockage.protocol.documents import Signs

from .outlets import Outlet
from .perform import reason_of
from .publishing import Publisher

log = structlog.get_logger("dockage.telling")

LASTS = Duration(12 * HOUR)
"""A document's term, and its grants'."""
RENEWED_SEC = 3600.0
LACKING_SEC = 15.0
"""Until a record that our user has set in the DNS is looked for again."""
PAUSE_SEC, PAUSE_MAX_SEC = 0.5, 10.0
"""After a document that could not be told, doubled with each."""
AGAIN_SEC = 0.5
"""Between two tries to watch."""
SILENT_SEC = 6.0
"""Without signs for so long, nobody is sent to the gateway any more."""
ANOTHERS = ("site.port", "site.taken")


class Stead(NamedTuple):
    """Whose deployment it is that we publish as a deputy."""

    tenant: NodeKey
    name: str
    """As its tenant calls it."""
    letter: bytes
    gateways: frozenset[NodeKey]
    """Where its tenant rented: its names in their zones go on there only."""


class Content(NamedTuple):
    """What a document says; the same content is told once."""

    name: str
    sites: tuple[Site, ...]
    replicas: tuple[Replica, ...]
    """Without grants."""
    gateways: tuple[NodeKey, ...]
    ports: tuple[int, ...]
    """Of containers, that grants are for."""
    fence: int
    """The controller's epoch: grants below it are void."""
    stead: Stead | None = None


class Telling:
    def __init__(
        self,
        outlet: Outlet,
        me: NodeKey,
        publisher: Publisher,
        clock: Clock,
        hear: Callable[[Telling, Signs], Awaitable[None]],
        taken: Callable[[Outlet], Awaitable[None]],
    ) -> None:
        """*hear*: is told the gateway's signs; *taken*: that a port which we chose ourselves is not to be had."""
        self.outlet = outlet
        self.trouble: Reason | None = None
        """Why the document is not told, or not served whole."""
        self.lacking: frozenset[str] = frozenset()
        """Hosts of it that the gateway does not serve."""
        self._me, self._publisher, self._clock, self._hear, self._taken = me, publisher, clock, hear, taken
        self._wanted: Content | None = None
        self.told: Content | None = None
        self.epoch = 0
        self._renew_at = 0.0
        self._moved, self._published = asyncio.Event(), asyncio.Event()
        self.heard_at = self._time()
        """On the loop's clock: the newest sign, or the beginning."""
        self.signs: Signs | None = None
        self._failures = 0

    @property
    def is_open(self) -> bool:
        """Whether people may be sent there."""
        return self.told is not None and self._time() - self.heard_at < SILENT_SEC

    @property
    def served(self) -> tuple[Site, ...]:
        """What was told, without the hosts that the gateway does not serve."""
        return without(self.told.sites, self.lacking) if self.told else ()

    @property
    def silent_sec(self) -> float:
        return self._time() - self.heard_at

    def want(self, content: Content) -> None:
        if content != self._wanted:
            self._wanted = content
            self._moved.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_telling())
            tasks.create_task(self._keep_hearing())

    # -- the document --------------------------------------------------------------------------------
    async def _keep_telling(self) -> None:
        while True:
            self._moved.clear()
            content = self._wanted
            if content is None or (content == self.told and self._time() < self._renew_at):
                await self._wait(None if content is None else self._renew_at - self._time())
                continue
            try:
                await self._tell(content)
            except DockageError as error:
                await self._not_told(error)

    async def _wait(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._moved.wait()
        except TimeoutError:
            pass

    async def _tell(self, content: Content) -> None:
        now = self._clock.now()
        stead = content.stead
        self.epoch = max(self.epoch + 1, now // SECOND + (0 if stead else OWN))
        expires = after(now, LASTS)
        replicas = tuple(self._granted(x, content, expires) for x in content.replicas)
        tenant = stead.tenant if stead else self._me
        document = Document(
            tenant, content.name, self.epoch, expires, content.sites, replicas, content.gateways
        )
        taken = await self._publisher.publish(self.outlet.lease, document, stead.letter if stead else b"")
        log.info(
            "document.told", deployment=content.name, gateway=short(self.outlet.gateway), epoch=self.epoch
        )
        self.told, self._failures = content, 0
        self.lacking, self.trouble = frozenset(taken.lacking), taken.why
        self._renew_at = self._time() + (LACKING_SEC if taken.lacking else RENEWED_SEC)
        if not self._published.is_set():
            self.heard_at = self._time()
            self._published.set()

    def _granted(self, x: Replica, content: Content, expires: Instant) -> Replica:
        """What gets no requests needs none."""
        if x.state == "standby":
            return x
        return replace(
            x,
            grant=self._publisher.grant(x.lease, self.outlet.gateway, content.fence, expires, content.ports),
        )

    async def _not_told(self, error: DockageError) -> None:
        log.info("document.not-told", gateway=short(self.outlet.gateway), code=error.code, why=error.message)
        if isinstance(error, UsageError) and error.code in ANOTHERS:
            await self._taken(self.outlet)
        self.trouble = reason_of(error)
        self._failures += 1
        await self._wait(min(PAUSE_MAX_SEC, PAUSE_SEC * 2 ** min(self._failures, 6)))

    # -- signs ---------------------------------------------------------------------------------------
    async def _keep_hearing(self) -> None:
        await self._published.wait()
        while True:
            try:
                async with aclosing(self._publisher.watch(self.outlet.lease)) as frames:
                    async for signs in frames:
                        self.heard_at, self.signs = self._time(), signs
                        await self._hear(self, self._known(signs))
            except DockageError as error:
                log.debug("signs.none", gateway=short(self.outlet.gateway), code=error.code)
            await asyncio.sleep(AGAIN_SEC)
            self._renew_at = 0.0  # whoever was gone may have forgotten it
            self._moved.set()

    def _known(self, signs: Signs) -> Signs:
        """Of what this gateway serves for us only: it has no word on other leases of ours."""
        told = {x.lease for x in self.told.replicas if x.state != "standby"} if self.told else set()
        return replace(signs, replicas=tuple(x for x in signs.replicas if x.lease in told))

    def _time(self) -> float:
        return asyncio.get_running_loop().time()
