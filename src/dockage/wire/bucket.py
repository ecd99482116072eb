"""A token bucket: how much of something may be had in a second, and how much at once. Time comes from outside."""

from __future__ import annotations


class Bucket:
    """*rate* a second on average, *burst* at once; full at the time *now* (seconds, any clock that only goes on)."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst, self._tokens, self._at = rate, burst, burst, now

    def spend(self, now: float, amount: float = 1, keep: float = 0) -> bool:
        """Take *amount* if at least *keep* is left then."""
        self._fill(now)
        if self._tokens - amount < keep:
            return False
        self._tokens -= amount
        return True

    def owe(self, now: float, amount: float) -> float:
        """Take *amount* in any case; how many seconds to wait until the debt is paid, 0 if there is none."""
        self._fill(now)
        self._tokens -= amount
        return max(0.0, -self._tokens / self._rate)

    def is_full(self, now: float) -> bool:
        """Then it remembers nothing, and may as well be forgotten."""
        self._fill(now)
        return self._tokens >= self._burst

    def _fill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = max(now, self._at)
