"""How leases and channels are written to the journal, and which of them a step has changed.

Counterpart: ``restore`` of both minds. Rows are msgpack maps by field name, so that a newer version may add
a field with a default and still read every older row. The one rule: what a step changed is written before
any effect of the step is performed.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import msgspec

from dockage.domain.channel import Channel
from dockage.domain.errors import UsageError
from dockage.domain.history import Line, Moment, Total, floor
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.lease import Ending
from dockage.domain.pricing import FIELDS, parts
from dockage.domain.units import MINUTE, Instant

from .provider import Provider, SoldLease
from .table import Table
from .tenant import RentedLease, Tenant

SOLD = "sold-lease"
RENTED = "rented-lease"
EARNING = "earning-channel"
"""A channel on which we are paid."""
PAYING = "paying-channel"
"""A channel on which we pay."""
DRAIN = "drain"
"""One row: the provider's announced end, or nothing."""
SPENT, EARNED = "spent", "earned"
"""A minute's totals (``domain/history.py``) of a lease that we rent, and of one that we sell."""
HISTORY = (SPENT, EARNED)

_encoder = msgspec.msgpack.Encoder()
_sold = msgspec.msgpack.Decoder(SoldLease)
_rented = msgspec.msgpack.Decoder(RentedLease)
_channel = msgspec.msgpack.Decoder(Channel)
_total = msgspec.msgpack.Decoder(Total)
_drain: msgspec.msgpack.Decoder[Ending | None] = msgspec.msgpack.Decoder(Ending | None)

T = TypeVar("T")


class Record(NamedTuple):
    """The fields of ``ports.machine.Row``, in its order."""

    kind: str
    key: bytes
    value: bytes


def encode_lease(lease: SoldLease | RentedLease) -> bytes:
    return _encoder.encode(lease)


def decode_sold_lease(data: bytes) -> SoldLease:
    """Raises UsageError("journal.unreadable")."""
    return decode(_sold, data)


def decode_rented_lease(data: bytes) -> RentedLease:
    """Raises UsageError("journal.unreadable")."""
    return decode(_rented, data)


def encode_channel(channel: Channel) -> bytes:
    return _encoder.encode(channel)


def decode_channel(data: bytes) -> Channel:
    """Raises UsageError("journal.unreadable")."""
    return decode(_channel, data)


def decode_total(data: bytes) -> Total:
    """Raises UsageError("journal.unreadable")."""
    return decode(_total, data)


def decode_drain(data: bytes) -> Ending | None:
    """Raises UsageError("journal.unreadable")."""
    return decode(_drain, data)


def moment_key(moment: Moment) -> bytes:
    return moment.lease + moment.minute.to_bytes(8, "big")


def moment_of(key: bytes) -> Moment:
    return Moment(LeaseId(key[:16]), Instant(int.from_bytes(key[16:], "big")))


def decode(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    """Raises UsageError("journal.unreadable")."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            "journal.unreadable",
            f"a row of the journal cannot be read ({error}): restore the newest backup of the node's folder",
        ) from None


def changes(before: Provider | Tenant | None, after: Provider | Tenant) -> list[Record]:
    """What a step changed (everything, when *before* is None). States are never mutated, so identity tells."""
    leases: list[Record] = []
    if isinstance(after, Provider):
        sold = before.leases if isinstance(before, Provider) else Table[LeaseId, SoldLease]()
        for x in after.leases.since(sold):
            leases += [Record(SOLD, x.id, encode_lease(x)), *_earned(sold.get(x.id), x)]
        if after.drain != (before.drain if isinstance(before, Provider) else None):
            leases.append(Record(DRAIN, b"", _encoder.encode(after.drain)))
    else:
        rented = before.leases if isinstance(before, Tenant) else Table[LeaseId, RentedLease]()
        for y in after.leases.since(rented):
            leases += [Record(RENTED, y.id, encode_lease(y)), *_spent(rented.get(y.id), y)]
    kind = EARNING if isinstance(after, Provider) else PAYING
    changed = after.channels.since(before.channels if before else Table())
    return [*leases, *(Record(kind, x.id, encode_channel(x)) for x in changed)]


# -- history -----------------------------------------------------------------------------------------
def _spent(before: RentedLease | None, after: RentedLease) -> list[Record]:
    """By our own clock: a provider must not choose under which minutes we file its statements."""
    if after.last is None or (before is not None and before.last is after.last):
        return []
    return [_minute(SPENT, after, after.provider, after.deployment, after.heard_at)]


def _earned(before: SoldLease | None, after: SoldLease) -> list[Record]:
    if after.last is None or (before is not None and before.last is after.last):
        return []
    return [_minute(EARNED, after, after.tenant, "", after.stated_at)]


def _minute(kind: str, lease: SoldLease | RentedLease, peer: NodeKey, deployment: str, at: Instant) -> Record:
    """Overwritten by each statement of the same minute."""
    assert lease.last is not None
    used, costs = lease.last.usage, parts(lease.last.usage, lease.tariff)
    amounts = ((name, getattr(used, field), costs[name]) for name, field in FIELDS.items())
    lines = {name: Line(amount, cost) for name, amount, cost in amounts if amount or cost}
    total = Total(peer, deployment, lease.due, lines)
    return Record(kind, moment_key(Moment(lease.id, floor(at, MINUTE))), _encoder.encode(total))
