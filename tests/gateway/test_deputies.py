"""A deputy keeps its tenant's public names alive, and gives them back: whole nodes around a real gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.nodes import Peer, World, until
from dockage.adapters.system.clock import SystemClock
from dockage.daemon.wishes import Wishes
from dockage.domain.deployment import OWN, Document, Site, alias
from dockage.domain.errors import DockageError, UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.units import HOUR, MINUTE, SECOND, Duration, Instant, Sat
from dockage.protocol.letters import Letter, sign_letter
from gateway.test_exposing import PATIENT, Copies, Doors, Town, eventually

NAME = "shop"
DOMAIN = "www.twice.example"
"""Its owner names the tenant in the DNS, and nobody else."""


class Home(Town):
    """A laptop whose deployment is public at one of two gateways, and a desk that is its deputy."""

    async def build(self) -> Home:
        await super().build()
        self.desk = await self.world.tenant(6, coins=(), wallet=False)
        self.desk.node.keeping.attach(Copies(self.desk, self.providers))
        shown = self.desk.node.linking.offer()
        await self.tenant.node.linking.accept(shown.password)
        await until(lambda: shown.state == "linked", PATIENT)
        return self

    async def back(self) -> None:
        """The laptop is opened again."""
        self.tenant.start()
        for peer in (*self.providers, *self.gateways, self.desk):
            self.tenant.node.link.learn(peer.keys.node, peer.node.link.address())
            peer.node.link.learn(self.tenant.keys.node, self.tenant.node.link.address())
        self.copies.tenant, self.copies.running = self.tenant, set()
        self.tenant.node.keeping.attach(self.copies)

    def time_passes(self) -> None:
        """For the deputy: its tenant's term is over."""
        steady: Any = self.desk.node.deputising._clock
        steady._from += MINUTE

    def document(self, doors: Doors) -> Document:
        [found] = self.gate(doors).node.ingress.documents.values()  # type: ignore[union-attr]
        return found

    def document_of_desk(self, doors: Doors) -> bool:
        found = list(self.gate(doors).node.ingress.documents.values())  # type: ignore[union-attr]
        return len(found) == 1 and found[0].epoch < OWN

    def gate(self, doors: Doors) -> Peer:
        return self.gateways[self.doors.index(doors)]


@pytest.fixture
async def home() -> AsyncIterator[Home]:  # type: ignore[override]
    async with World(SystemClock()) as world:
        yield await Home(world).build()


async def test_a_public_name_goes_on_while_its_tenant_is_away_and_after(home: Home) -> None:
    await home.up(NAME, public="80", host=DOMAIN)
    await until(lambda: home.urls(NAME), PATIENT)
    [gateway] = home.shown(NAME)["gateways"]
    doors = next(x for x in home.doors if x.zone == gateway["zone"])
    name = alias(NAME, home.tenant.keys.node, doors.zone)
    await home.tenant.node.deputies.add(NAME, "machine-6", Sat(0), None, Duration(24 * HOUR))
    [deputised] = home.desk.node.deputising.state.charges.values()
    await until(lambda: home.desk.node.deputising.stead(deputised.name), PATIENT)
    assert home.document(doors).epoch > OWN

    await home.tenant.stop()
    home.time_passes()
    await until(lambda: home.document_of_desk(doors), PATIENT)
    await eventually(lambda: doors.status(name), 200)
    assert await doors.status(DOMAIN) == 200
    document = home.document(doors)
    assert (document.tenant, document.name) == (home.tenant.keys.node, NAME)
    assert document.epoch < OWN
    gate = home.gate(doors)
    await gate.restart()  # the letter outlives it, too
    for peer in (home.desk, *home.providers):
        peer.node.link.learn(gate.keys.node, gate.node.link.address())
        gate.node.link.learn(peer.keys.node, peer.node.link.address())
    await until(lambda: doors.listeners.bound, PATIENT)
    await eventually(lambda: doors.status(name), 200)

    await home.back()
    await until(lambda: home.document(doors).epoch > OWN, PATIENT)
    await eventually(lambda: doors.status(name), 200)
    await until(lambda: all(x.is_over for x in home.desk.node.tenant.state.leases.values()), PATIENT)
    await eventually(lambda: doors.status(name), 200)


# -- lies ----------------------------------------------------------------------------------------------
class Forger:
    """The desk, which rents at a gateway and publishes what it likes."""

    def __init__(self, home: Home, lease: LeaseId) -> None:
        self.home, self.lease = home, lease
        self.doors = next(
            x for x, gate in zip(home.doors, home.gateways, strict=True) if gate.keys.node == self.provider
        )
        self.host = alias(NAME, home.tenant.keys.node, self.doors.zone)

    @property
    def provider(self) -> Any:
        return self.home.desk.rented(self.lease).provider

    def letter(self, **how: Any) -> bytes:
        tenant, expires = self.home.tenant.keys, Instant(self.home.world.clock.now() + HOUR)
        letter = Letter(tenant.node, self.home.desk.keys.node, NAME, expires)
        return sign_letter(replace(letter, **how), tenant.sign)

    async def publish(self, letter: bytes, epoch: int = 7, **how: Any) -> str:
        """ "" if it was taken, or the code."""
        home, expires = self.home, Instant(self.home.world.clock.now() + HOUR)
        site = Site((self.host,), 80, "web")
        document = Document(home.tenant.keys.node, NAME, epoch, expires, (site,), (), ())
        refused = home.gate(self.doors).node.reception.refused
        before = dict(refused)
        try:
            await home.desk.node.publisher.publish(self.lease, replace(document, **how), letter)
        except UsageError as error:
            return error.code
        except DockageError:
            for peer in home.gateways:  # the breach has cost the connection
                home.desk.node.link.learn(peer.keys.node, peer.node.link.address())
            return next(code for code, count in refused.items() if count != before.get(code, 0))
        return ""


async def test_a_letter_is_for_one_deputy_and_one_deployment_and_below_the_tenants_own_word(
    home: Home,
) -> None:
    rented = await home.desk.node.renting.ingress("mine", Wishes(), lambda _: None)
    forger = Forger(home, rented.id)
    letter = forger.letter()
    assert await forger.publish(b"") == "document.signature"
    assert await forger.publish(letter[:-1] + bytes([letter[-1] ^ 1])) == "letter.forged"
    assert await forger.publish(b"\1" + letter) == "letter.malformed"
    assert await forger.publish(forger.letter(deputy=home.tenant.keys.node)) == "letter.other"
    assert await forger.publish(forger.letter(expires=Instant(SECOND))) == "letter.expired"
    assert await forger.publish(letter, name="blog") == "document.other"
    assert await forger.publish(letter, epoch=OWN) == "document.deputy"
    other = alias("shop", home.desk.keys.node, forger.doors.zone)
    assert await forger.publish(letter, sites=(Site((other,), 80, "web"),)) == "site.foreign"
    assert await forger.publish(letter) == ""
    ours = await home.tenant.node.renting.ingress(
        NAME, Wishes(provider=forger.provider.hex()), lambda _: None
    )
    document = replace(home.document(forger.doors), epoch=OWN + 1)
    await home.tenant.node.publisher.publish(ours.id, document)
    assert await forger.publish(letter, epoch=OWN - 1) == "document.old"
