"""A tenant's controller and its deputy's mind, each with its own clock, and a path between them that a test cuts."""

from __future__ import annotations

from dockage.domain.identity import NodeKey
from dockage.domain.units import HOUR, SECOND, Instant, Msat, Sat
from dockage.node import controller as acting
from dockage.node import controller_words as say
from dockage.node import deputy as mind
from dockage.node.deputy import Charge, Deputy, Mandated, SpentSeen, TermAsked, Ticked
from dockage.node.kept import Goal, durable, restore
from dockage.protocol.mandates import Mandate

from .controllerlab import ME, PRICE, SHOP, START, lease, place

DEPUTY = NodeKey(b"d" * 32)
KEY = (ME, SHOP)
ALLOWANCE = Sat(1000)


def mandate(
    version: int = 1, expires: int = 24 * HOUR, budget: int = 100, recipe: bytes = b"recipe"
) -> Mandate:
    return Mandate(ME, DEPUTY, SHOP, version, Instant(START + expires), Sat(budget), None, (), recipe)


class Pair:
    """*slip*: how much the deputy's clock is ahead, in seconds."""

    def __init__(self, slip: int = 0, given: Mandate | None = None) -> None:
        self.now, self.slip = START, slip
        self.state = restore(ME, ())
        self.deputy = Deputy(DEPUTY, ALLOWANCE)
        self.epoch = 1
        self.tell(say.Wanted(SHOP, Goal(recipe="r", ready=True), lease(1), place(1), PRICE))
        self.tell(say.Shared(SHOP, shared=True))
        self.hear(Mandated(given or mandate()))

    @property
    def charge(self) -> Charge:
        return self.deputy.charges[KEY]

    @property
    def tenant_acts(self) -> bool:
        return self.state.acts(self.state.deployments[SHOP], self.now)

    @property
    def there(self) -> Instant:
        """The deputy's now."""
        return Instant(self.now + self.slip * SECOND)

    def tell(self, event: object) -> tuple[object, ...]:
        self.state, wants = acting.step(self.state, event, self.now)
        return wants

    def hear(self, event: object) -> None:
        self.deputy, _ = mind.step(self.deputy, event, self.there)

    def ask(self, *, heard: bool = True, answered: bool = True, serves: bool = False) -> None:
        """One question of the tenant; a lost answer leaves it with what it knew."""
        self.tell(say.TermAsked(SHOP, self.epoch))
        asked_at = self.state.terms[SHOP].asked_at
        if not heard or KEY not in self.deputy.charges:
            return
        self.hear(TermAsked(ME, SHOP, self.epoch, serves))
        witness = self.charge.witness
        if not answered:
            return
        if witness.holder == ME and witness.epoch == self.epoch:
            self.tell(say.TermGranted(SHOP, DEPUTY, self.epoch, asked_at, (DEPUTY,)))
        else:
            self.epoch = witness.epoch + 1

    def second(self, count: int = 1) -> None:
        for _ in range(count):
            self.now = Instant(self.now + SECOND)
            self.hear(Ticked())
            self.tell(say.Looked(()))
            self.check()

    def check(self) -> None:
        charge = self.deputy.charges.get(KEY)
        assert not (self.tenant_acts and charge is not None and charge.acts), "both act"

    def spend(self, msat: int) -> None:
        self.hear(SpentSeen(KEY, Msat(msat)))

    def restart_tenant(self) -> None:
        self.state = restore(ME, [durable(x) for x in self.state.deployments.values()])

    def restart_deputy(self) -> None:
        self.deputy = mind.restore(DEPUTY, ALLOWANCE, self.deputy.charges.values(), self.there)
