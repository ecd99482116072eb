"""Asks the price policy again and again, and tells the provider's mind what new leases cost.

The one rule: a lease that runs and a quote that is out keep their tariff; only what is sold next is priced anew.
"""

from __future__ import annotations

import asyncio

import structlog

from dockage.domain.errors import Unavailable
from dockage.domain.pricing import Tariff
from dockage.domain.reason import TEXT_MAX, Reason
from dockage.node import events as told
from dockage.node.provider import Provider, free
from dockage.ports.hosting import PricePolicy

from .driver import Driver

log = structlog.get_logger("dockage.prices")

PERIOD_SEC = 5.0
NOT_YET = Reason("provider.no-price", "the provider has just started and has no price yet; ask again")


class PriceLoop:
    def __init__(self, driver: Driver[Provider], policy: PricePolicy, base: Tariff) -> None:
        self._driver, self._policy, self._base = driver, policy, base

    async def run(self) -> None:
        while True:
            await self._price()
            await asyncio.sleep(PERIOD_SEC)

    async def _price(self) -> None:
        state = self._driver.state
        sold = state.policy.capacity.sold_permille(free(state))
        try:
            tariff = await self._policy.tariff(self._base, sold)
        except Unavailable as error:
            lost = Reason("provider.no-price", f"the provider has no price now: {error.message}"[:TEXT_MAX])
            if state.unpriced != lost:
                log.warning("price.lost", code=error.code, why=error.message)
                await self._driver.post(told.PriceLost(lost))
            return
        if state.unpriced is not None or tariff != state.policy.tariff:
            log.info("price.set", sold_permille=sold, cpu_hour_msat=tariff.cpu_hour)
            await self._driver.post(told.Priced(tariff))
