"""The controller put together: its mind, its journal, its ears and its hands. Made in ``wiring.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import msgspec

from dockage.domain.identity import LeaseId
from dockage.domain.units import Instant
from dockage.node import controller
from dockage.node.controller_words import AnyWant
from dockage.node.effects import AnyEffect
from dockage.node.kept import Controller, Deployment, durable, restore
from dockage.node.tenant import Tenant
from dockage.ports.machine import Clock, Journal, Keys, Row
from dockage.wire.http import HttpClient

from .beside import Beside
from .driver import Driver
from .keeping import Beat, Keeping
from .keeping_hands import Hands
from .peers import Opener
from .renting import Renting
from .rows import kept
from .steps import Steps
from .tasks import Jobs
from .wellness import wellness

KIND = "controller.deployment"
GONE = b""


def keeper(
    keys: Keys,
    clock: Clock,
    journal: Journal,
    rows: Sequence[Row],
    tenant: Driver[Tenant],
    renting: Renting,
    open_stream: Opener,
    jobs: Jobs,
    steps: Steps,
) -> tuple[Keeping, Driver[Controller]]:
    hands = Hands(Beside(renting, tenant), tenant, journal, rows, jobs, open_stream, steps)
    stored = kept(rows, KIND, Deployment)
    state = restore(keys.node, stored)

    def step(state: Controller, event: object, now: Instant) -> tuple[Controller, tuple[AnyEffect, ...]]:
        return cast("tuple[Controller, tuple[AnyEffect, ...]]", controller.step(state, event, now))

    # The driver's effects are those of the two older minds; this one's go to its own hands and nowhere else.
    perform = cast("Callable[[AnyEffect], None]", _performing(hands))
    hands.driver = Driver(state, step, changed, journal, perform, clock)
    ears = (_beat(renting), wellness(renting.engine))
    return Keeping(hands.driver, tenant, hands, *ears, clock), hands.driver


def _performing(hands: Hands) -> Callable[[AnyWant], None]:
    return hands.perform


def changed(before: Controller, after: Controller) -> list[Row]:
    """The rows in which two states differ: signs are not stored."""
    rows = [
        Row(KIND, name.encode(), msgspec.msgpack.encode(durable(of)))
        for name, of in after.deployments.items()
        if _differs(before.deployments.get(name), of)
    ]
    gone = before.deployments.keys() - after.deployments.keys()
    return rows + [Row(KIND, name.encode(), GONE) for name in sorted(gone)]


def _differs(before: Deployment | None, after: Deployment) -> bool:
    return before is not after and (before is None or durable(before) != durable(after))


def _beat(renting: Renting) -> Beat:
    """The lease's own engine answers: the line, the provider's daemon and the gate are alive."""

    async def beat(lease: LeaseId) -> bool:
        stream = await renting.engine(lease)
        try:
            response = await HttpClient(stream).request("GET", "/_ping")
            return response.status < 400
        finally:
            stream.abort()

    return beat
