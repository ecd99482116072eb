"""Replicas get their image from each other: which of our leases has it, and our word that it may be handed on.

The tenant's half (``Seeds``) and the provider's (``source_opener``, ``seed_server``). Only leases of one deployment are
named to each other: who else we rent from is nobody's business.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from dockage.domain.errors import PeerError, Unavailable, UsageError
from dockage.domain.identity import LeaseId, NodeKey, short
from dockage.domain.lease import METERED
from dockage.domain.units import Instant
from dockage.node.provider import Provider
from dockage.node.tenant import RentedLease, Tenant
from dockage.ports.hosting import ContainerHost, OpenSource
from dockage.ports.machine import Clock, Keys
from dockage.ports.peers import Stream
from dockage.protocol import streams
from dockage.protocol.grants import VALID, Grant, open_grant, sign_grant
from dockage.protocol.images import SOURCES_MAX, Source
from dockage.wire.frames import write_frame

from .driver import Driver
from .peers import Opener

DIAL = 5.0


class Seeds:
    """Kept in memory: after a restart an image travels from us once more, which does no harm."""

    def __init__(self, driver: Driver[Tenant], keys: Keys, clock: Clock) -> None:
        self._driver, self._keys, self._clock = driver, keys, clock
        self._images: dict[LeaseId, set[str]] = {}

    def holds(self, lease: LeaseId, image: str) -> None:
        """*image* (``sha256:...``) has arrived there."""
        live = {id_ for id_, each in self._driver.state.leases.items() if not each.is_over}
        self._images = {id_: images for id_, images in self._images.items() if id_ in live}
        self._images.setdefault(lease, set()).add(image)

    def sources(self, lease: LeaseId, image: str) -> Sequence[Source]:
        """Who else of the deployment of *lease* has it, each with a grant for the provider of *lease*."""
        mine = self._driver.state.leases.get(lease)
        if mine is None:
            return ()
        others = [x for x in self._driver.state.leases.values() if self._may_give(x, mine, image)]
        return [self._source(each, mine.provider, image) for each in others[:SOURCES_MAX]]

    def _may_give(self, other: RentedLease, mine: RentedLease, image: str) -> bool:
        return (
            other.deployment == mine.deployment
            and other.provider != mine.provider
            and other.state in METERED
            and image in self._images.get(other.id, ())
        )

    def _source(self, other: RentedLease, holder: NodeKey, image: str) -> Source:
        digest = bytes.fromhex(image.removeprefix("sha256:"))
        until = Instant(self._clock.now() + VALID)
        grant = Grant(self._keys.node, other.id, holder, ("layers",), 0, until, image=digest)
        return Source(other.provider, other.id, sign_grant(grant, self._keys.sign))


def source_opener(open_stream: Opener) -> OpenSource:
    async def open_source(source: Source) -> Stream:
        stream = await open_stream(source.provider, DIAL)
        await write_frame(stream, streams.encode_header(streams.Seed(source.lease, source.grant)))
        return stream

    return open_source


def seed_server(
    driver: Driver[Provider], host: ContainerHost, keys: Keys, clock: Clock
) -> Callable[[NodeKey, streams.Seed, Stream], Awaitable[None]]:
    """Gives layers to who shows a grant of the lease's tenant. A bad one costs the asker its connection."""

    async def serve(peer: NodeKey, header: streams.Seed, stream: Stream) -> None:
        grant = open_grant(header.grant, peer, header.lease, "layers", clock.now(), keys.verify)
        held = driver.state.leases.get(header.lease)
        if held is None or held.tenant != grant.tenant:
            raise PeerError("grant.other", "the grant is of nobody who rents here")
        if held.state not in METERED:
            raise Unavailable("lease.ended", f"the lease {short(header.lease)} does not run")
        try:
            await host.serve_seed(header.lease, "sha256:" + grant.image.hex(), stream)
        except (UsageError, TimeoutError) as error:
            raise Unavailable("image.unknown", f"nothing to give: {error}") from error

    return serve
