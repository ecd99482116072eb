"""Of payments whose causes were written together the newest of each channel is made, and nothing else is left out."""

from __future__ import annotations

from dockage.domain.identity import ChannelId, NodeKey
from dockage.domain.units import Sat
from dockage.node.effects import AnyEffect, Broadcast, Pay, worth_performing

PEER = NodeKey(bytes(32))
ONE, OTHER = ChannelId(b"1" * 16), ChannelId(b"2" * 16)


def pay(channel: ChannelId, paid: int) -> Pay:
    return Pay(PEER, channel, Sat(paid))


def test_a_payment_contains_the_earlier_ones_on_its_channel() -> None:
    news = Broadcast(ONE, b"raw")
    wanted: list[AnyEffect] = [pay(ONE, 5), pay(OTHER, 3), news, pay(ONE, 6), news]
    assert worth_performing(wanted) == [pay(OTHER, 3), news, pay(ONE, 6), news]
    assert worth_performing([]) == []
