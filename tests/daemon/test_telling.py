"""One deployment at one gateway: what is told, in which order, and what is believed. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from itertools import pairwise

import pytest

from daemon.nodes import until
from dockage.daemon import telling
from dockage.daemon.outlets import Outlet
from dockage.daemon.telling import LASTS, SILENT_SEC, Content, Stead, Telling
from dockage.domain.deployment import OWN, Document, Replica, Site
from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.offer import Ingress
from dockage.domain.reason import Reason
from dockage.protocol.documents import ReplicaSign, Signs, Taken
from dockage.testing.loop import LoopClock

ME, GATEWAY = NodeKey(b"t" * 32), NodeKey(b"g" * 32)
INGRESS, OURS, OTHER = (LeaseId(bytes([n]) * 16) for n in (1, 2, 3))


class Gate:
    """A ``Publisher`` with a gateway behind it that does what a test says."""

    def __init__(self) -> None:
        self.documents: list[Document] = []
        self.letters: set[bytes] = set()
        self.refuses: list[str] = []
        self.lacking: tuple[str, ...] = ()
        self.grants: list[tuple[LeaseId, int]] = []
        self.signs: asyncio.Queue[Signs | None] = asyncio.Queue()

    def grant(self, lease: LeaseId, _holder: NodeKey, epoch: int, *_: object) -> bytes:
        self.grants.append((lease, epoch))
        return b"grant"

    async def publish(self, _: LeaseId, document: Document, letter: bytes) -> Taken:
        self.letters.add(letter)
        if self.refuses:
            raise UsageError(self.refuses.pop(0), "no")
        self.documents.append(document)
        why = Reason("site.unproven", "set the record") if self.lacking else None
        return Taken(document.epoch, self.lacking, why)

    async def watch(self, _: LeaseId) -> AsyncGenerator[Signs]:
        while (signs := await self.signs.get()) is not None:
            yield signs
        raise Unavailable("gateway.silent", "gone")


class Scene:
    def __init__(self) -> None:
        self.gate, self.heard, self.taken = Gate(), list[Signs](), list[Outlet]()
        outlet = Outlet(INGRESS, "shop", GATEWAY, Ingress("gw.example", ("203.0.113.7",)))

        async def hear(_: Telling, signs: Signs) -> None:
            self.heard.append(signs)

        async def taken(outlet: Outlet) -> None:
            self.taken.append(outlet)

        gate: object = self.gate
        self.telling = Telling(outlet, ME, gate, LoopClock(), hear, taken)  # type: ignore[arg-type]

    def want(self, state: str = "serving", fence: int = 1, stead: Stead | None = None) -> None:
        replica = Replica(NodeKey(b"p" * 32), OURS, (("web", "ab" * 32),), b"", state)  # type: ignore[arg-type]
        site = Site(("shop.gw.example",), 80, "web")
        self.telling.want(Content("shop", (site,), (replica,), (GATEWAY,), (80,), fence, stead))

    async def told(self, count: int) -> Document:
        await until(lambda: len(self.gate.documents) >= count)
        return self.gate.documents[-1]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    running = asyncio.ensure_future(scene.telling.run())
    yield scene
    running.cancel()


async def test_the_same_is_told_once_and_each_change_with_a_higher_epoch(scene: Scene) -> None:
    scene.want()
    first = await scene.told(1)
    scene.want()
    await asyncio.sleep(60)
    assert len(scene.gate.documents) == 1
    scene.want(fence=2)
    second = await scene.told(2)
    assert second.epoch > first.epoch
    assert scene.gate.grants == [(OURS, 1), (OURS, 2)], "below the fence nothing is let in"


async def test_it_is_renewed_long_before_its_time(scene: Scene) -> None:
    scene.want()
    first = await scene.told(1)
    await asyncio.sleep(LASTS / 2 / 1e9)
    assert scene.gate.documents[-1].expires > first.expires


async def test_a_deputy_renews_its_tenants_document_for_days_and_never_reaches_the_tenants_epochs(
    scene: Scene,
) -> None:
    tenant = NodeKey(b"T" * 32)
    scene.want(stead=Stead(tenant, "shop", b"letter", frozenset()))
    await asyncio.sleep(3 * 24 * 3600)
    told = scene.gate.documents
    assert len(told) >= 72
    assert all(old.rank < new.rank for old, new in pairwise(told))
    assert {(x.tenant, x.name) for x in told} == {(tenant, "shop")}
    assert scene.gate.letters == {b"letter"}
    scene.want()
    own = await scene.told(len(told) + 1)
    assert told[-2].epoch < OWN < own.epoch
    assert own.tenant == ME


async def test_a_standby_gets_no_grant(scene: Scene) -> None:
    scene.want("standby")
    assert (await scene.told(1)).replicas[0].grant == b""
    assert scene.gate.grants == []


async def test_a_port_of_somebody_else_is_exchanged_and_other_refusals_are_shown(scene: Scene) -> None:
    scene.gate.refuses = ["site.taken", "document.dropped"]
    scene.want()
    await until(lambda: scene.taken)
    await until(lambda: scene.telling.trouble and scene.telling.trouble.code == "document.dropped")
    assert not scene.telling.is_open
    await scene.told(1)
    assert scene.telling.trouble is None
    assert len(scene.taken) == 1


async def test_a_host_that_is_not_served_is_asked_for_again_and_the_rest_is_open(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "LACKING_SEC", 0.01)
    scene.gate.lacking = ("shop.gw.example",)
    scene.want()
    await scene.told(2)
    assert scene.telling.is_open
    assert scene.telling.trouble == Reason("site.unproven", "set the record")
    assert scene.telling.served[0].hosts == ()
    scene.gate.lacking = ()
    await until(lambda: scene.telling.trouble is None)
    assert scene.telling.served[0].hosts == ("shop.gw.example",)


async def test_a_gateway_has_no_word_on_what_it_was_not_told_of(scene: Scene) -> None:
    scene.want()
    await scene.told(1)
    lie = Signs(1, (), (ReplicaSign(OURS, 0, 1), ReplicaSign(OTHER, 9, 0)), wanted=False)
    scene.gate.signs.put_nowait(lie)
    await until(lambda: scene.heard)
    assert [x.lease for x in scene.heard[0].replicas] == [OURS]


async def test_nobody_is_sent_to_a_gateway_that_is_silent_until_it_speaks_again(scene: Scene) -> None:
    scene.want()
    await scene.told(1)
    assert scene.telling.is_open
    await asyncio.sleep(SILENT_SEC + 1)
    assert not scene.telling.is_open
    scene.gate.signs.put_nowait(Signs(1, (), (), wanted=False))
    await until(lambda: scene.telling.is_open)


async def test_whoever_was_gone_is_told_again(scene: Scene) -> None:
    scene.want()
    await scene.told(1)
    scene.gate.signs.put_nowait(None)
    await scene.told(2)
