"""Puts our user's Docker engine together, beside ``system.py``: where its images are, and how they get into leases."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dockage.adapters.images import CERTS, EngineImages, ImageSender, LeftImages, OwnImages, Pulling, WithLeft
from dockage.adapters.probe.prober import LeaseProber, ProbeImage, program
from dockage.adapters.system.machine import architecture
from dockage.domain.identity import LeaseId
from dockage.ports.hosting import Prober
from dockage.ports.machine import Journal
from dockage.ports.renting import Progress
from dockage.protocol.images import Source
from dockage.protocol.probe import Image

from .ground import IntoLease, Loop
from .node import Node
from .seeds import Seeds
from .updating import attend

if TYPE_CHECKING:
    from dockage.adapters.front.front import DockerFront


def open_front(node: Node, journal: Journal, stack: AsyncExitStack) -> list[Loop]:
    from dockage.adapters.front.front import DockerFront  # a node that only sells does without

    home, tenant, rents, clock = node.home, node.config.tenant, node.renting, node.clock
    seeds = Seeds(node.tenant, node.keys, clock)
    engine = Path(tenant.engine) if tenant.engine and Path(tenant.engine).exists() else None
    left = node.deputising.left = LeftImages(home / "left-images", clock)
    store: OwnImages | None = None
    own: EngineImages | OwnImages
    if engine is not None:
        own = EngineImages(engine, home / "images")
        stack.push_async_callback(own.close)
    else:
        own = store = OwnImages(home / "own-images", clock)
    sender = ImageSender(WithLeft(left, own))
    node.deputies.leaving.sender = ImageSender(own, "the deputy")

    async def send_image(reference: str, lease: LeaseId, progress: Progress) -> str:
        def report(done: int, total: int) -> None:
            if total:  # nothing where it is there already
                progress(f"sending {reference}: {-(-done >> 20)} of {-(-total >> 20)} MiB")

        def sources(image: str) -> Sequence[Source]:
            return seeds.sources(lease, image)

        image = await sender.send(lambda: rents.layers(lease), reference, report, sources)
        seeds.holds(lease, image)
        return image

    front = DockerFront(
        home / tenant.socket,
        rents,
        engine,
        send_image,
        journal,
        clock=clock,
        bind_host=tenant.bind_host,
        store=store,
        puller=Pulling(store, home / "pulled", architecture(), (home / "certs.d", *CERTS)) if store else None,
        tell=node.steps.tell,
        linger_sec=tenant.linger_sec,
    )
    return [front.serve, partial(_attach, node, front)]


async def _attach(node: Node, front: DockerFront) -> None:
    """The controller keeps what is in the front's books, so they must be read first."""
    await front.ready.wait()
    attend(node, front.changes)
    node.keeping.attach(front)
    node.deputising.lacks = front.lacks


def prober(engine: IntoLease, layers: IntoLease) -> Prober:
    """Offers are looked for on our own processor's kind, so the probe is of that kind."""

    async def send(lease: LeaseId, image: Image) -> None:
        await ImageSender(ProbeImage(image)).send(lambda: layers(lease), image.manifest.image)

    machine = architecture()
    return LeaseProber(engine, send, program(machine), machine, time.monotonic)
