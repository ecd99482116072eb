"""Prices that are worth the same in a display unit (EUR, say) whatever a bitcoin costs.

The rule: a rate that is absurd, jumps, or is too old sets no price. Then nothing new is sold, for a wrong rate
sells the machine for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from dockage.domain.errors import Unavailable
from dockage.domain.pricing import Tariff, at_rate

JUMP_PERCENT = 20
"""A rate further than this from the last one must be seen twice in a row before it counts."""


class Rate(Protocol):
    async def micro(self) -> int:
        """Millionths of the display unit that a bitcoin costs. Raises Unavailable("price.rate")."""


class Bounds(NamedTuple):
    reference: int
    """The rate at which the prices of the config hold, in the same millionths."""
    low: int
    high: int
    max_age_sec: float
    """How long the last good rate may be used while no newer one is to be had."""


class FixedRate:
    def __init__(self, micro: int) -> None:
        self._micro = micro

    async def micro(self) -> int:
        return self._micro


class Pegged:
    def __init__(self, rate: Rate, bounds: Bounds, every_sec: float, now: Callable[[], float]) -> None:
        self._source, self._bounds, self._every, self._now = rate, bounds, every_sec, now
        self._rate = 0
        self._read_at = self._good_at = float("-inf")
        self._doubtful = 0
        """A jump that was seen once."""
        self._why = Unavailable("price.rate", "no exchange rate was read yet")

    async def tariff(self, base: Tariff, sold_permille: int) -> Tariff:
        if self._now() - self._read_at >= self._every or not self._rate:
            await self._read()
        if not self._rate or self._now() - self._good_at > self._bounds.max_age_sec:
            raise self._why
        return at_rate(base, self._bounds.reference, self._rate)

    async def _read(self) -> None:
        self._read_at = self._now()
        try:
            self._rate = self._believed(await self._source.micro())
            self._good_at = self._now()
        except Unavailable as error:
            self._why = error

    def _believed(self, rate: int) -> int:
        """Raises Unavailable("price.absurd" | "price.jump")."""
        low, high = self._bounds.low, self._bounds.high
        if not low <= rate <= high:
            said = f"the rate {rate / 1e6:g} is not between {low / 1e6:g} and {high / 1e6:g}"
            raise Unavailable("price.absurd", f"{said}: mend its source, or peg.rate_min and peg.rate_max")
        if (
            self._rate
            and _is_jump(self._rate, rate)
            and (not self._doubtful or _is_jump(self._doubtful, rate))
        ):
            self._doubtful = rate
            said = f"the rate jumped from {self._rate / 1e6:g} to {rate / 1e6:g}"
            raise Unavailable("price.jump", f"{said}; it counts once it is seen again")
        self._doubtful = 0
        return rate


def _is_jump(before: int, now: int) -> bool:
    return abs(now - before) * 100 > before * JUMP_PERCENT
