"""Read a mind's behaviour as a script: ``>>`` goes in, ``<<`` must come out, in this order, and nothing else.

Each script is played twice: straight through, and with a restart (journal rows out, journal rows in) after every
event. Counterpart: the minds in ``node/``. The one rule: a script that is not asserted complains.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, Protocol, Self

from msgspec.structs import replace

from dockage.domain.errors import PeerError
from dockage.domain.identity import NodeKey
from dockage.domain.units import SECOND, Duration, Instant
from dockage.node import provider, provider_ending, records, tenant
from dockage.node.effects import AnyEffect
from dockage.node.events import AnyEvent, BlockSeen
from dockage.node.policy import ProviderPolicy, TenantPolicy
from dockage.node.provider import Provider
from dockage.node.tenant import Tenant

START = Instant(1_800_000_000 * SECOND)


class Mind(Protocol):
    """A state with its step function, as a script sees it."""

    def handle(self, event: AnyEvent, now: Instant) -> tuple[AnyEffect, ...]: ...

    def restart(self, now: Instant) -> tuple[AnyEffect, ...]: ...

    def copy(self) -> Self: ...


class ProviderMind:
    def __init__(self, policy: ProviderPolicy, state: Provider | None = None) -> None:
        self.policy, self.state = policy, state or Provider(policy)

    def handle(self, event: AnyEvent, now: Instant) -> tuple[AnyEffect, ...]:
        self.state, effects = provider.step(self.state, event, now)
        return effects

    def restart(self, now: Instant) -> tuple[AnyEffect, ...]:
        rows = records.changes(None, self.state)
        leases = [records.decode_sold_lease(r.value) for r in rows if r.kind == records.SOLD]
        channels = [records.decode_channel(r.value) for r in rows if r.kind == records.EARNING]
        drain = next((records.decode_drain(r.value) for r in rows if r.kind == records.DRAIN), None)
        drain = provider_ending.remembered(drain, now)
        height, closes_at = self.state.height, self.state.closes_at
        self.state = replace(provider.restore(self.policy, leases, channels, drain), closes_at=closes_at)
        self.state, _ = provider.step(self.state, BlockSeen(height), now)
        return provider.outstanding(self.state)

    def copy(self) -> ProviderMind:
        return ProviderMind(self.policy, self.state)


class TenantMind:
    def __init__(self, me: NodeKey, policy: TenantPolicy | None = None, state: Tenant | None = None) -> None:
        self.me, self.policy = me, policy or TenantPolicy()
        self.state = state or Tenant(me, self.policy)

    def handle(self, event: AnyEvent, now: Instant) -> tuple[AnyEffect, ...]:
        self.state, effects = tenant.step(self.state, event, now)
        return effects

    def restart(self, now: Instant) -> tuple[AnyEffect, ...]:
        rows = records.changes(None, self.state)
        leases = [records.decode_rented_lease(r.value) for r in rows if r.kind == records.RENTED]
        channels = [records.decode_channel(r.value) for r in rows if r.kind == records.PAYING]
        height, self.state = self.state.height, tenant.restore(self.me, self.policy, leases, channels)
        self.state, _ = tenant.step(self.state, BlockSeen(height), now)
        return tenant.outstanding(self.state)

    def copy(self) -> TenantMind:
        return TenantMind(self.me, self.policy, self.state)


class Wait:
    """Lets time pass between two events."""

    def __init__(self, seconds: float) -> None:
        self.duration = Duration(int(seconds * SECOND))

    def __repr__(self) -> str:
        return f"{self.duration / SECOND:g} s later"


class Like:
    """Stands for any value of *kind* with these attributes: what a script does not care about is left out."""

    def __init__(self, kind: type | tuple[type, ...], **wanted: Any) -> None:
        self._kind, self._wanted = kind, wanted

    def __eq__(self, other: object) -> bool:
        return isinstance(other, self._kind) and all(
            getattr(other, name) == value for name, value in self._wanted.items()
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        kinds = self._kind if isinstance(self._kind, tuple) else (self._kind,)
        inside = ", ".join(f"{name}={value!r}" for name, value in self._wanted.items())
        return f"{'|'.join(kind.__name__ for kind in kinds)}(.. {inside})"


class Refused:
    """Must come out where the mind raises PeerError with *code*."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Refused) and other.code == self.code

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Refused({self.code!r})"


class Playbook:
    def __init__(self, mind: Mind, *, now: Instant = START, restarts: bool = True) -> None:
        self._mind, self._now, self._restarts = mind, now, restarts
        self._script: list[tuple[str, Any]] = []
        self._played = False

    def __rshift__(self, event: Any) -> Self:
        self._script.append((">>", event))
        return self

    def __lshift__(self, effect: Any) -> Self:
        self._script.append(("<<", effect))
        return self

    def __bool__(self) -> bool:
        self._played = True
        if self._restarts:
            interrupted = self._mind.copy()
            self._compare(self._play(interrupted, interrupted.restart), "with a restart after each event")
        self._compare(self._play(self._mind, None), "straight through")
        return True

    def __del__(self) -> None:
        if self._script and not self._played:
            raise AssertionError(f"a playbook that nobody asserted: {self._script[0][1]!r} ...")

    def _play(self, mind: Mind, between: Callable[[Instant], Any] | None) -> list[tuple[str, Any]]:
        actual: list[tuple[str, Any]] = []
        now = self._now
        for arrow, item in self._script:
            if arrow == "<<":
                continue
            actual.append((arrow, item))
            if isinstance(item, Wait):
                now = Instant(now + item.duration)
                continue
            try:
                actual += [("<<", effect) for effect in mind.handle(item, now)]
            except PeerError as error:
                actual.append(("<<", Refused(error.code)))
            if between is not None:
                between(now)
        return actual

    def _compare(self, actual: list[tuple[str, Any]], how: str) -> None:
        if self._script == actual:
            return
        wanted = [f"{arrow} {item!r}" for arrow, item in self._script]
        got = [
            f"{arrow} {ours!r}" if (ours_arrow, ours) == (arrow, item) else f"{arrow} {item!r}"
            for (arrow, item), (ours_arrow, ours) in _aligned(actual, self._script)
        ]
        raise AssertionError(f"the play went differently ({how})\n" + "\n".join(difflib.ndiff(wanted, got)))


def _aligned(
    actual: list[tuple[str, Any]], script: list[tuple[str, Any]]
) -> list[tuple[tuple[str, Any], tuple[str, Any]]]:
    """Pairs each line that was played with the one in the script, so that a ``Like`` that fits shows no diff."""
    padded = script + [("", None)] * max(0, len(actual) - len(script))
    return list(zip(actual, padded, strict=False))
