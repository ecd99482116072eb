"""Joins what our user's other machines need: they are linked, hear of each other, and help one another in.

A part of ``wiring.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

from dockage.domain.identity import NodeKey
from dockage.domain.offer import Offer
from dockage.node import events as told
from dockage.node import provider as selling
from dockage.node.provider_ending import why_closed
from dockage.ports.peers import Address
from dockage.protocol import streams

from .driver import Driver
from .entrance import Entrance, Way
from .ground import Ground, Loop
from .linking import Linking
from .machines import Machines
from .own import OwnMarket
from .peers import Opener
from .presence import Presence

LAN_SEC = 5.0
MAINLINE_SEC = 30.0
"""For the first addresses to come from there."""


def wire_machines(
    ground: Ground,
    loops: list[Loop],
    machines: Machines,
    provider: Driver[selling.Provider] | None,
    open_stream: Opener,
) -> tuple[OwnMarket, Linking, Entrance | None]:
    wanted, link, clock, keys = ground.config.node, ground.link, ground.clock, ground.keys

    def offered() -> Offer | None:
        """They pay nothing, so that there is no price at the moment does not matter."""
        closed = provider is None or why_closed(provider.state, clock.now())
        return None if provider is None or closed else selling.offer(provider.state, keys.node)

    async def changed() -> None:
        if provider is not None:
            await provider.tell(told.Linked(machines.keys))

    machines.changed = changed
    known = ground.contacts.live if ground.contacts else tuple
    own = OwnMarket(machines, link, open_stream, keys, clock, offered, known)
    presence = Presence(
        ground.neighbours, link, machines, network=wanted.network, market=wanted.market, always=wanted.lan
    )
    name = wanted.name or ground.hostname
    linking = Linking(link, clock, machines, presence, ground.new_pake, ground.rand, name)
    ground.reception.serve_kind(streams.Own, own.serve)
    ground.reception.serve_kind(streams.Pairing, linking.serve)
    loops += [own.run, presence.run, linking.run]
    return own, linking, _entrance(ground, loops, own, presence)


def _entrance(ground: Ground, loops: list[Loop], own: OwnMarket, presence: Presence) -> Entrance | None:
    if ground.contacts is None:
        return None
    wanted, square = ground.config.node, ground.square

    async def hints() -> Sequence[tuple[NodeKey, Address]]:
        return own.hints()

    ways = [Way("machines", hints, 1.0)]
    if wanted.lan:
        ways.append(Way("lan", lambda: presence.market_nodes(LAN_SEC), 2 * LAN_SEC))
    if square is not None:
        ways.append(Way("mainline", lambda: square.find(MAINLINE_SEC), 2 * MAINLINE_SEC))
        loops += [square.stand] if wanted.market else []
    entrance = Entrance(ground.contacts, ways, ground.entered, is_market=wanted.market)
    loops += [entrance.run, ground.contacts.keep_up]
    return entrance
