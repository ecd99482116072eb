"""The prices of the config, and the ones that follow how much of the machine is sold."""

from __future__ import annotations

from dockage.domain.pricing import Tariff, by_use


class Fixed:
    async def tariff(self, base: Tariff, sold_permille: int) -> Tariff:
        return base


class ByUse:
    """From *empty_percent* of the base prices on an idle machine to *full_percent* on one that is sold out."""

    def __init__(self, empty_percent: int, full_percent: int) -> None:
        self._empty, self._full = empty_percent, full_percent

    async def tariff(self, base: Tariff, sold_permille: int) -> Tariff:
        return by_use(base, sold_permille, self._empty, self._full)
