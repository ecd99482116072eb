"""Puts a node's side of the network together, beside ``system.py``: its link, the board, and the ways to find others.

Extras are imported only where our user wants what they are for.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from random import SystemRandom

from dockage.adapters.dht.directory import KademliaDirectory
from dockage.adapters.keys.files import FileKeys
from dockage.adapters.link.link import IrohLink
from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.identity import NodeKey
from dockage.ports.machine import Clock, Journal, Row
from dockage.ports.peers import Address, Neighbours, Pake, PublicSquare, Stream
from dockage.protocol import streams
from dockage.protocol.pairing import NAME_MAX
from dockage.wire.ahead import Headed
from dockage.wire.frames import frame

from . import nat
from .config import Config
from .ondisk import on_disk
from .peers import Reception
from .presence import lan_missing

LINK_PORT = "link-port"


async def open_link(config: Config, keys: FileKeys, rows: Sequence[Row], journal: Journal) -> IrohLink:
    """With port 0, the port of the last run if it is free: peers find us again at once after a restart."""
    host, _, port = config.node.bind.rpartition(":")
    last = next((r.value.decode() for r in rows if r.kind == LINK_PORT), "0")
    create = partial(
        IrohLink.create, keys.seed, relayed=nat.wants_relays(config), roams=not config.provider.enabled
    )
    try:
        link = await create(f"{host}:{last if port == '0' else port}")
    except Unavailable:
        if port != "0" or last == "0":
            raise
        link = await create(config.node.bind)
    if link.address().direct:
        _, _, bound = link.address().direct[0].rpartition(":")
        await on_disk(journal.write, [Row(LINK_PORT, b"", bound.encode())])
    return link


def new_pake(password: str, parties: tuple[bytes, bytes], *, first: bool) -> Pake:
    from dockage.adapters.pairing import SpakeSide  # a third of a second, for what a node does once a year

    return SpakeSide(password, parties, first=first)


def neighbours(config: Config) -> Callable[[], Neighbours] | None:
    """None without the extra. Nothing is imported or listened to before it is wanted."""
    if find_spec("zeroconf") is None:
        if config.node.lan:
            raise lan_missing()
        return None

    def make() -> Neighbours:
        from dockage.adapters.lan import LanNeighbours

        return LanNeighbours(config.node.lan_interfaces)

    return make


def hostname() -> str:
    """As far as other machines may show it."""
    printable = "".join(x for x in platform.node().partition(".")[0] if x.isprintable())
    return printable[:NAME_MAX] or "machine"


def open_directory(
    config: Config, keys: FileKeys, clock: Clock, link: IrohLink, reception: Reception
) -> KademliaDirectory:
    header = frame(streams.encode_header(streams.Directory()))

    async def open_stream(peer: NodeKey) -> Stream:
        return Headed(await link.open(peer, 5.0), header)

    directory = KademliaDirectory(
        node=keys.node,
        verify=keys.verify,
        clock=clock,
        open_stream=open_stream,
        learn=link.learn,
        address=link.address,
        rand=SystemRandom(),
        server=config.node.market,
        bound=config.node.public,
        seen=link.seen,
    )

    async def serve(peer: NodeKey, _header: streams.Directory, stream: Stream) -> None:
        await directory.serve_stream(peer, stream)

    reception.serve_kind(streams.Directory, serve)
    return directory


async def keep_board(directory: KademliaDirectory, entered: asyncio.Event) -> None:
    await entered.wait()
    await directory.run()


def observers(
    seeds: Sequence[tuple[NodeKey, Address]], directory: KademliaDirectory
) -> Sequence[tuple[NodeKey, Address]]:
    """Who may be asked where it sees us."""
    return [*seeds, *directory.contacts()]


def public_square(config: Config, me: NodeKey, link: IrohLink) -> PublicSquare | None:
    """None unless our user wants it."""
    wanted = config.node
    if not wanted.mainline:
        return None
    try:
        from dockage.adapters.mainline import MainlineSquare
    except ImportError:
        raise UsageError(
            "mainline.missing",
            "the BitTorrent DHT needs the extra `mainline`, which is not installed: pip install 'dockage[mainline]'",
        ) from None

    def port() -> int:
        direct = link.address().direct
        return int(direct[0].rpartition(":")[2]) if direct else 0

    host = wanted.bind.rpartition(":")[0]
    return MainlineSquare(wanted.network, wanted.mainline_nodes, me, port, host, wanted.mainline_port)
