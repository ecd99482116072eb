"""What a tenant sees of its lease from inside, held against what the provider states. Spec: docs/spec/04c-checks.md.

Two questions: is more CPU or memory stated than the containers' own kernel files show, and is a core a core. The one
rule: an honest provider on a busy machine is never condemned, so every comparison is by bounds that hold whatever the
load does, and one bad answer is no finding.
"""

from __future__ import annotations

import msgspec

from .reason import Reason
from .resources import Resources
from .statement import Statement
from .units import MIB, MILLISECOND, SECOND, Duration, Instant

CPU_TOLERANCE_PERCENT = 2
CPU_SLACK_NS = 200 * MILLISECOND
"""A reading is stale by one scheduler tick for each core; below this nothing can be told."""
MEMORY_TOLERANCE_PERCENT = 25
MEMORY_SLACK = 64 * MIB
"""What dead containers leave in the lease's cgroup until the kernel takes it back."""
SHARE_PERMILLE = 650
"""Of the promised core that must be delivered: a third may be lost to a hypervisor's steal or a busy neighbour."""
RECENT = 5
BAD_MAX = 4
"""Bad probes among the recent ones that make a finding: a busy minute is not a short core."""
PROCESSES_MAX = 16
"""Of a probe: one for each core."""
SURELY_LATER = Duration(2 * SECOND)
"""A statement is made up to a second after its reading, and takes a while on its way: one so much later than a look,
by the provider's clock, was read after it."""
COVERED_PERCENT = 75
"""Of the time between two looks that must lie between the statements compared, before all is said to be well."""
FIRST = 2
"""Looks at a new lease that come soon after each other."""
SURE = 2
"""Looks in a row that must find the same."""


class Counted(msgspec.Struct, frozen=True):
    """One running container, by its own kernel files."""

    container: str
    started: str
    """The engine's StartedAt: a restart begins a new counter."""
    cpu_ns: int
    memory_bytes: int
    """Working set, as it is metered."""
    shares: int = 1024
    """Its weight where containers compete for a core, as Docker counts it; the probe has 1024."""


class Beside(msgspec.Struct, frozen=True):
    """What the tenant's own containers did around a probe."""

    cpu_ns: int
    wall_ns: int
    """At least so long; longer than the probe itself."""
    shares: int


class Probe(msgspec.Struct, frozen=True):
    """Work of a known size that was done in the lease, by a process for each core, none of which ever waits."""

    wall_ns: int
    cpu_ns: int
    work: int
    """Hashes, as far as their results prove it."""
    touch_ns: int = 0
    """Mean time of a random touch of fresh memory; 0 where none was touched."""
    beside: Beside | None = None
    """None where the containers could not be read."""


class Look(msgspec.Struct, frozen=True):
    """One look at a lease from inside."""

    containers: tuple[Counted, ...]
    complete: bool = True
    """False if a container could not be read, or came and went since the look before."""
    probe: Probe | None = None
    cost_ns: int = 0
    """CPU that the look itself took: the tenant pays for it."""


class Mark(msgspec.Struct, frozen=True):
    """A statement, as far as looks need it."""

    cpu_ns: int
    memory_bytes: int
    at: Instant
    """Provider's clock."""


class Base(msgspec.Struct, frozen=True):
    """A look that later ones are compared with."""

    containers: tuple[Counted, ...]
    at: Instant
    """Our clock."""
    later: Instant
    """A statement from this moment on, by the provider's clock, was read after the look."""
    stated: Mark | None = None
    """The first such statement; None until it has come."""


class Checks(msgspec.Struct, frozen=True):
    """All that the looks at one lease have shown so far."""

    looks: int = 0
    judged: int = 0
    """Looks that could compare what was stated."""
    begun: Mark | None = None
    """The newest statement when the look began that is under way."""
    began_at: Instant = Instant(0)
    """Our clock."""
    heard_at: Instant = Instant(0)
    """Our clock, when the newest statement came."""
    base: Base | None = None
    overstated: int = 0
    """Looks in a row that found too much stated."""
    bad: tuple[bool, ...] = ()
    """The recent probes: whether less than the promised core was delivered."""
    score: int = 0
    """Hashes per core-millisecond in the newest probe: how fast a core is."""
    touch_ns: int = 0
    cost_ns: int = 0
    unchecked: int = 0
    """Looks in a row that could compare nothing."""
    awaited_until: Instant = Instant(0)
    """When the next look is overdue; 0 before the first is asked for."""


NONE = Checks()


def mark(statement: Statement) -> Mark:
    return Mark(statement.usage.cpu_ns, statement.memory_bytes, statement.at)


def overstatement(base: Base, look: Look, begun: Mark, now: Instant) -> Reason | bool | None:
    """A reason if more was stated than the containers show, False if not, None if nothing can be told.

    What was stated between a statement surely after the base and one surely before this look is less than what the
    containers used between the two looks, however the load moved."""
    if not look.complete or base.stated is None or not _same(base.containers, look.containers):
        return None
    used = sum(c.cpu_ns for c in look.containers) - sum(c.cpu_ns for c in base.containers)
    stated = begun.cpu_ns - base.stated.cpu_ns
    if max(used, stated) <= 2 * CPU_SLACK_NS:
        return _memory_overstatement(look, begun)
    if stated > used + used * CPU_TOLERANCE_PERCENT // 100 + CPU_SLACK_NS:
        said = f"{stated / SECOND:.2f} core-seconds were stated while the containers used {used / SECOND:.2f}"
        return Reason("meter.overstated", said)
    covered = (begun.at - base.stated.at) * 100 >= (now - base.at) * COVERED_PERCENT
    return _memory_overstatement(look, begun) or (False if covered else None)


def _memory_overstatement(look: Look, begun: Mark) -> Reason | None:
    held = sum(c.memory_bytes for c in look.containers)
    if begun.memory_bytes <= held + held * MEMORY_TOLERANCE_PERCENT // 100 + MEMORY_SLACK:
        return None
    said = f"{begun.memory_bytes // MIB} MiB of memory were stated while the containers held {held // MIB}"
    return Reason("meter.overstated", said)


def _same(before: tuple[Counted, ...], now: tuple[Counted, ...]) -> bool:
    """The same containers, none restarted in between."""
    return bool(now) and {(c.container, c.started) for c in before} == {(c.container, c.started) for c in now}


def is_short(probe: Probe, limits: Resources) -> bool | None:
    """Whether less was delivered than was promised; None if unknown.

    The probe takes what the containers leave, and competes with them by weight. So beside it they got at most its own
    share times their weight, and at most what they used around it: the lesser of the two explains what is missing."""
    beside = probe.beside
    if beside is None or probe.wall_ns <= 0:
        return None
    used_around = beside.cpu_ns * probe.wall_ns // max(probe.wall_ns, beside.wall_ns)
    theirs = min(used_around, probe.cpu_ns * beside.shares // 1024)
    promised = promised_milli(limits) * probe.wall_ns // 1000
    return (probe.cpu_ns + theirs) * 1000 < promised * SHARE_PERMILLE


def promised_milli(limits: Resources) -> int:
    """As far as a probe can ask for it. What is not reserved was promised to nobody."""
    return min(1000 * PROCESSES_MAX, limits.reserved.cpu_milli)


def starvation(checks: Checks, limits: Resources) -> Reason | None:
    if sum(checks.bad) < BAD_MAX:
        return None
    promised = promised_milli(limits) / 1000
    said = f"{sum(checks.bad)} of {len(checks.bad)} probes got under {SHARE_PERMILLE / 10:g} % of {promised:g} cores"
    return Reason("meter.short", said)


def after_look(checks: Checks, look: Look, limits: Resources, now: Instant) -> tuple[Checks, Reason | None]:
    """What is known after *look*, and what it found: the caller decides what follows."""
    begun = checks.begun
    base = checks.base
    found = (
        overstatement(base, look, begun, checks.began_at) if base is not None and begun is not None else None
    )
    row = checks.overstated + 1 if isinstance(found, Reason) else 0 if found is False else checks.overstated
    short = is_short(look.probe, limits) if look.probe else None
    bad = checks.bad if short is None else (*checks.bad, short)[-RECENT:]
    done = msgspec.structs.replace(
        checks,
        looks=checks.looks + 1,
        judged=checks.judged + (found is not None),
        begun=None,
        base=_next_base(checks, look, found, now),
        overstated=row,
        bad=bad,
        score=look.probe.work * MILLISECOND // max(1, look.probe.cpu_ns) if look.probe else checks.score,
        touch_ns=look.probe.touch_ns if look.probe else checks.touch_ns,
        cost_ns=checks.cost_ns + look.cost_ns,
        unchecked=0 if found is not None or short is not None else checks.unchecked + 1,
    )
    return done, found if isinstance(found, Reason) else None


def _next_base(checks: Checks, look: Look, found: Reason | bool | None, now: Instant) -> Base | None:
    """A window too short to tell grows on; every other look begins a new one."""
    base, begun = checks.base, checks.begun
    if found is None and base is not None and look.complete and _same(base.containers, look.containers):
        return base
    if not look.containers or begun is None:
        return None
    later = Instant(begun.at + max(0, now - checks.heard_at) + SURELY_LATER)
    return Base(look.containers, checks.began_at, later)


def after_statement(checks: Checks, statement: Statement, now: Instant) -> Checks:
    base = checks.base
    if base is not None and base.stated is None and statement.at >= base.later:
        base = msgspec.structs.replace(base, stated=mark(statement))
    return msgspec.structs.replace(checks, base=base, heard_at=now)


def is_uneasy(checks: Checks) -> bool:
    """Whether the next look should come soon: the first ones, and while something looks wrong."""
    young = checks.judged < FIRST and checks.unchecked < RECENT
    return young or checks.overstated > 0 or any(checks.bad)
