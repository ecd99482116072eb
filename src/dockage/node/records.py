"""How leases and channels are written to the journal, and which of them a step has changed.

Counterpart: ``restore`` of both minds. Rows are msgpack maps by field name, so that a newer version may add
a field with a default and still read every older row. The one rule: what a step changed is written before
any effect of the step is performed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import msgspec

from dockage.domain.channel import Channel
from dockage.domain.errors import UsageError

from .provider import Provider, SoldLease
from .tenant import RentedLease, Tenant

SOLD = "sold-lease"
RENTED = "rented-lease"
EARNING = "earning-channel"
"""A channel on which we are paid."""
PAYING = "paying-channel"
"""A channel on which we pay."""

_encoder = msgspec.msgpack.Encoder()
_sold = msgspec.msgpack.Decoder(SoldLease)
_rented = msgspec.msgpack.Decoder(RentedLease)
_channel = msgspec.msgpack.Decoder(Channel)

K = TypeVar("K")
T = TypeVar("T")


class Record(NamedTuple):
    """The fields of ``ports.Row``, in its order."""

    kind: str
    key: bytes
    value: bytes


def encode_lease(lease: SoldLease | RentedLease) -> bytes:
    return _encoder.encode(lease)


def decode_sold_lease(data: bytes) -> SoldLease:
    """Raises UsageError("journal.unreadable")."""
    return _decode(_sold, data)


def decode_rented_lease(data: bytes) -> RentedLease:
    """Raises UsageError("journal.unreadable")."""
    return _decode(_rented, data)


def encode_channel(channel: Channel) -> bytes:
    return _encoder.encode(channel)


def decode_channel(data: bytes) -> Channel:
    """Raises UsageError("journal.unreadable")."""
    return _decode(_channel, data)


def _decode(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            "journal.unreadable",
            f"a row of the journal cannot be read ({error}): restore the newest backup of the node's folder",
        ) from None


def changes(before: Provider | Tenant | None, after: Provider | Tenant) -> list[Record]:
    """What a step changed (everything, when *before* is None). States are never mutated, so identity tells."""
    if isinstance(after, Provider):
        sold = before.leases if isinstance(before, Provider) else {}
        leases = [Record(SOLD, x.id, encode_lease(x)) for x in _changed(sold, after.leases)]
    else:
        rented = before.leases if isinstance(before, Tenant) else {}
        leases = [Record(RENTED, x.id, encode_lease(x)) for x in _changed(rented, after.leases)]
    kind = EARNING if isinstance(after, Provider) else PAYING
    changed = _changed(before.channels if before else {}, after.channels)
    return [*leases, *(Record(kind, x.id, encode_channel(x)) for x in changed)]


def _changed(before: Mapping[K, T], after: Mapping[K, T]) -> list[T]:
    if before is after:
        return []
    return [value for key, value in after.items() if before.get(key) is not value]
