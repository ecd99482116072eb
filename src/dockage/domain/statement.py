"""One tick's bill, and what the tenant checks before it pays.

A statement is cumulative and chained: sequence number, hash of the previous one, hash of the quote. The
tenant countersigns by paying. Two signed statements with one sequence number prove equivocation.
"""

from __future__ import annotations

import hashlib

import msgspec

from .identity import LeaseId
from .offer import Quote
from .pricing import price
from .reason import Reason
from .resources import Resources
from .units import SECOND, Duration, Instant, Msat, Sat
from .unseen import CLOCK_SLACK, IN_FLIGHT, INTERNET_BURST, INTERNET_RATE, REPLICA_RATE
from .usage import Usage, full_use

CPU_SLACK_NS = 2 * SECOND
"""CFS bandwidth lets a burst through that was saved up before; over a lease this bounds it."""
OF_CONTAINERS = ("cpu_ns", "memory_mib_ms", "disk_mib_ms", "internet_out_bytes", "replica_out_bytes")
"""What a place at a gateway or a relay can't use: none runs there."""

_canonical = msgspec.msgpack.Encoder()


class Statement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="statement"):
    lease: LeaseId
    seq: int
    """1, 2, 3, ...: no gap, though a statement may be lost on the way."""
    previous: bytes
    """SHA-256 of the previous statement's canonical bytes; 32 zero bytes before the first."""
    at: Instant
    """Provider's wall clock."""
    usage: Usage
    terms: bytes
    """SHA-256 of the quote the lease was opened with: its tariff, and which of a tenant's leases this is for ever."""
    due: Msat
    """``price(usage, tariff)`` of this lease alone."""
    received_sat: Sat
    """What the provider holds signed over all channels of the pair: heals a lost payment."""
    memory_bytes: int
    """Gauges of this moment, for display."""
    disk_bytes: int
    containers: int


GENESIS = bytes(32)
NO_USE = Usage()


def digest(record: Statement | Quote) -> bytes:
    """SHA-256 of the canonical encoding (msgpack, fields in order; docs/spec/04b-statements.md)."""
    return hashlib.sha256(_canonical.encode(record)).digest()


class View(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the tenant knows by itself when a statement arrives."""

    sent_bytes: int
    """Payload it handed to the tunnel."""
    received_bytes: int
    """Payload it got out of the tunnel."""
    elapsed: Duration
    """Since it asked for the lease to be opened, or for its present limits (the tenant's mind fills it in)."""


def possible(limits: Resources, time: Duration) -> Usage:
    """The most that can be stated honestly for *time* under *limits*, tunnel and slack aside."""
    traffic = Usage(
        internet_out_bytes=INTERNET_RATE * time // SECOND, replica_out_bytes=REPLICA_RATE * time // SECOND
    )
    return full_use(limits, time) + traffic


def fault(
    statement: Statement,
    last: Statement | None,
    limits: Resources,
    quote: Quote,
    view: View,
    earlier: Usage = NO_USE,
    *,
    runs: bool = True,
) -> Reason | None:
    """What is wrong with *statement*, or None. Order of checks: chain, arithmetic, physics, our own view.

    *earlier* is what was ``possible`` before *limits* came into force; ``view.elapsed`` counts from then. *runs*: the
    lease can hold containers."""
    return (
        _chain_fault(statement, last)
        or _price_fault(statement, quote)
        or (None if runs else _place_fault(statement))
        or _physics_fault(statement, limits, view, earlier)
    )


def contradiction(first: Statement, second: Statement) -> Reason | None:
    """What two statements, both signed by one provider, prove to anybody; None if it can honestly have signed both.

    ``terms`` says that they are of one lease for ever: a tenant may use a lease's id again, never its quote."""
    if (first.lease, first.terms) != (second.lease, second.terms) or first == second:
        return None
    if first.seq > second.seq:
        first, second = second, first
    if first.seq == second.seq:
        return Reason("statement.forked", f"two different statements are numbered {first.seq}")
    if second.seq == first.seq + 1 and second.previous != digest(first):
        return Reason("statement.forked", f"statement {second.seq} does not follow the one before it")
    if not second.usage.covers(first.usage) or second.at < first.at:
        return Reason("statement.backwards", "a total or the clock went backwards")
    return None


def overcharge(quote: Quote, statement: Statement) -> Reason | None:
    """What a quote and a statement by it prove to anybody: arithmetic that is wrong."""
    if statement.lease != quote.lease or statement.terms != digest(quote):
        return None
    return _price_fault(statement, quote)


def _chain_fault(statement: Statement, last: Statement | None) -> Reason | None:
    expected = digest(last) if last else GENESIS
    first = last.seq + 1 if last else 1
    if last and statement.seq == last.seq and statement != last:
        return Reason("statement.forked", f"two different statements are numbered {statement.seq}")
    if statement.seq < first:
        return Reason("statement.replayed", f"statement {statement.seq} came after {first - 1}")
    if statement.seq == first and statement.previous != expected:
        return Reason("statement.forked", f"statement {statement.seq} does not follow the one before it")
    if last and (not statement.usage.covers(last.usage) or statement.at < last.at):
        return Reason("statement.backwards", "a total or the clock went backwards")
    return None


def _price_fault(statement: Statement, quote: Quote) -> Reason | None:
    if statement.terms != digest(quote):
        return Reason("statement.terms", "the statement is not by the quote that the lease was opened with")
    due = price(statement.usage, quote.tariff)
    if statement.due != due:
        return Reason("statement.sum", f"the statement says {statement.due} msat, its usage costs {due}")
    return None


def _place_fault(statement: Statement) -> Reason | None:
    used = next((name for name in OF_CONTAINERS if getattr(statement.usage, name)), "")
    return Reason("statement.impossible", f"{used} is stated where no container runs") if used else None


def _physics_fault(statement: Statement, limits: Resources, view: View, earlier: Usage) -> Reason | None:
    used, most = statement.usage, earlier + possible(limits, Duration(view.elapsed + CLOCK_SLACK))
    excess = (
        ("cpu", used.cpu_ns, most.cpu_ns + most.cpu_ns // 100 + CPU_SLACK_NS),
        ("memory", used.memory_mib_ms, most.memory_mib_ms),
        ("disk", used.disk_mib_ms, 2 * most.disk_mib_ms),
        ("reserved cpu", used.cpu_reserved_ns, most.cpu_reserved_ns),
        ("reserved memory", used.memory_reserved_mib_ms, most.memory_reserved_mib_ms),
        ("bytes in", used.net_in_bytes, view.sent_bytes + IN_FLIGHT),
        ("bytes out", used.net_out_bytes, view.received_bytes + IN_FLIGHT),
        ("internet bytes", used.internet_out_bytes, most.internet_out_bytes + INTERNET_BURST),
        ("replica bytes", used.replica_out_bytes, most.replica_out_bytes),
    )
    for name, said, limit in excess:
        if said > limit:
            return Reason("statement.impossible", f"{name}: {said} stated, at most {limit} possible")
    return None
