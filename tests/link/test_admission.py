"""Who may begin a handshake: decided by where it comes from, before anything is spent on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from iroh.iroh_ffi import IncomingAddr

from dockage.adapters.link import IrohLink
from dockage.wire.limits import LinkLimits

LIMITS = LinkLimits(source_rate=1, source_burst=4, handshakes=8)
SEED = bytes(range(32))


class Incoming:
    """Stands in for the transport's: an attempt from an address, which a QUIC retry has proven or not."""

    def __init__(self, host: str, proven: bool = False) -> None:
        self._host, self._proven = host, proven
        self.done = ""

    async def remote_addr(self) -> IncomingAddr:
        return IncomingAddr.IP(f"{self._host}:4711")

    async def remote_addr_validated(self) -> bool:
        return self._proven

    async def ignore(self) -> None:
        self.done = "ignored"

    async def retry(self) -> None:
        self.done = "asked to prove itself"

    async def refuse(self) -> None:
        self.done = "refused"


@pytest.fixture
async def link() -> AsyncIterator[IrohLink]:
    made = await IrohLink.create(SEED, limits=LIMITS)
    yield made
    await made.close()


async def outcome(link: IrohLink, host: str, proven: bool = False) -> str:
    incoming = Incoming(host, proven)
    admitted = await link._admits(incoming)
    assert admitted == (not incoming.done)
    return incoming.done or "admitted"


async def test_forged_packets_cannot_use_up_what_an_honest_address_needs(link: IrohLink) -> None:
    forged = [await outcome(link, "192.0.2.1") for _ in range(50)]
    assert forged[:2] == ["admitted", "admitted"]
    assert set(forged[2:]) == {"asked to prove itself"}
    assert await outcome(link, "192.0.2.1", proven=True) == "admitted"


async def test_an_address_that_comes_too_often_is_not_answered_and_others_are(link: IrohLink) -> None:
    outcomes = [await outcome(link, "192.0.2.1", proven=True) for _ in range(6)]
    assert outcomes == ["admitted"] * 4 + ["ignored"] * 2
    assert await outcome(link, "192.0.2.2") == "admitted"


async def test_all_of_one_slash_64_are_one(link: IrohLink) -> None:
    outcomes = [await outcome(link, f"[2001:db8::{n:x}]", proven=True) for n in range(1, 7)]
    assert outcomes == ["admitted"] * 4 + ["ignored"] * 2


async def test_under_many_handshakes_an_address_must_prove_itself_first(link: IrohLink) -> None:
    link._handshakes = LIMITS.handshakes // 4
    assert await outcome(link, "192.0.2.1") == "asked to prove itself"
    assert await outcome(link, "192.0.2.1", proven=True) == "admitted"
    link._handshakes = LIMITS.handshakes
    assert await outcome(link, "192.0.2.1", proven=True) == "refused"


async def test_those_that_come_through_a_relay_are_told_apart_by_their_keys(link: IrohLink) -> None:
    other = await IrohLink.create(bytes(32))

    class Relayed(Incoming):
        async def remote_addr(self) -> IncomingAddr:
            key = other._endpoint.id() if self._host == "other" else link._endpoint.id()
            return IncomingAddr.RELAY("http://198.51.100.7:3340/", key)

    seen = [await link._admits(Relayed("one", proven=True)) for _ in range(6)]
    assert seen == [True] * 4 + [False] * 2
    assert await link._admits(Relayed("other", proven=True))
    await other.close()
