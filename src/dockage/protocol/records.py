"""Signed, expiring records: what the market's notice board holds. Spec: docs/spec/02-records.md.

Whoever stores or reads a record opens it here first, so that nothing else is ever kept or shown. A record is
bound to one topic by its content: stored under any other it is misplaced. ``seq`` orders the records of one
publisher; the stamp is proof of work, which decides who stays when a topic is full. A new kind is a line in KINDS.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from dockage.domain.errors import PeerError, UsageError
from dockage.domain.identity import NodeKey
from dockage.domain.offer import Offer
from dockage.domain.units import HOUR, MINUTE, Duration, Instant

from .reading import decoded
from .signed import Sign, Verify

RECORD_MAX = 2048
"""Bytes of a sealed record."""
LIFETIME = Duration(20 * MINUTE)
"""Of offers and nodes, from sealing to expiry; publishers seal anew at half of it. A node that dies is off the board
by itself."""
ZONE_LIFETIME = Duration(24 * HOUR)
"""A tenant's zone outlives a night of its closed laptop."""
ZONE_MAX = 1000
"""Bytes of a zone's payload, as in Mainline's BEP 44."""
CLOCK_SLACK = Duration(2 * MINUTE)
"""How far the clocks of two honest nodes may be apart."""
SHARDS = 8
CONTEXT = b"dockage/1\0"


class Body(Protocol):
    @property
    def seq(self) -> Instant: ...

    @property
    def expires(self) -> Instant: ...


class OfferBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    seq: Instant
    """When it was sealed: the publisher's clock, strictly growing."""
    expires: Instant
    offer: Offer
    relay: str
    """URL, or "" if the provider is reached directly."""
    direct: tuple[str, ...]
    """``ip:port`` strings."""


class NodeBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a node is, for those who know only its key."""

    seq: Instant
    expires: Instant
    relay: str
    direct: tuple[str, ...]


class ZoneBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A tenant's slow facts (which gateways, which controllers), one for each key: pkarr's idea."""

    seq: Instant
    expires: Instant
    payload: bytes
    """Opaque to the market, 1 to ZONE_MAX bytes."""


class WithdrawnBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """In an offer's place: newer than it, and under the same topic, so that no board shows the offer any more."""

    seq: Instant
    expires: Instant
    region: str


class IndexBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An index of one region's offers, and where it is (docs/spec/03b-index.md)."""

    seq: Instant
    expires: Instant
    region: str
    relay: str
    direct: tuple[str, ...]


class Kind(NamedTuple):
    """What is particular to one kind of record; all other checks are the same for all."""

    body: type[Any]
    lifetime: Duration
    """The longest from sealing to expiry."""
    topic: Callable[[NodeKey, Any], bytes]
    is_sane: Callable[[NodeKey, Any], bool]


class Record(NamedTuple):
    """An opened record: every check has passed."""

    kind: str
    key: NodeKey
    seq: Instant
    expires: Instant
    topic: bytes
    body: Any
    work: int
    """Proof of work in bits: a publisher spent about 2**work hashes on it."""
    blob: bytes
    tag: bytes
    """The first 8 bytes of the blob's SHA-256: readers say with it what they have."""


class _Envelope(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    kind: str
    key: bytes
    body: bytes
    signature: bytes
    stamp: int


# -- topics --------------------------------------------------------------------------------------------
def offers_topic(region: str, shard: int) -> bytes:
    return hashlib.sha256(f"dockage/1/offers/{region}/{shard}".encode()).digest()


def offers_topics(region: str) -> tuple[bytes, ...]:
    """All that a tenant must read to know every offer of *region*."""
    return tuple(offers_topic(region, shard) for shard in range(SHARDS))


def node_topic(key: NodeKey) -> bytes:
    return hashlib.sha256(b"dockage/1/node/" + key.hex().encode()).digest()


def indexes_topic(region: str) -> bytes:
    return hashlib.sha256(f"dockage/1/indexes/{region}".encode()).digest()


def zone_topic(key: NodeKey) -> bytes:
    return hashlib.sha256(b"dockage/1/zone/" + key.hex().encode()).digest()


def _sane_address(relay: str, direct: tuple[str, ...]) -> bool:
    return len(relay) <= 255 and len(direct) <= 8 and all(len(address) <= 64 for address in direct)


def _sane_region(region: str) -> bool:
    return 0 < len(region) <= 32


KINDS: Mapping[str, Kind] = {
    "offer": Kind(
        OfferBody,
        LIFETIME,
        lambda key, body: offers_topic(body.offer.region, key[0] % SHARDS),
        lambda key, body: (
            body.offer.is_sane and body.offer.provider == key and _sane_address(body.relay, body.direct)
        ),
    ),
    "withdrawn": Kind(
        WithdrawnBody,
        LIFETIME,
        lambda key, body: offers_topic(body.region, key[0] % SHARDS),
        lambda key, body: _sane_region(body.region),
    ),
    "index": Kind(
        IndexBody,
        LIFETIME,
        lambda key, body: indexes_topic(body.region),
        lambda key, body: _sane_region(body.region) and _sane_address(body.relay, body.direct),
    ),
    "node": Kind(
        NodeBody,
        LIFETIME,
        lambda key, body: node_topic(key),
        lambda key, body: _sane_address(body.relay, body.direct),
    ),
    "zone": Kind(
        ZoneBody,
        ZONE_LIFETIME,
        lambda key, body: zone_topic(key),
        lambda key, body: 0 < len(body.payload) <= ZONE_MAX,
    ),
}


# -- seal and open -------------------------------------------------------------------------------------
_encode = msgspec.msgpack.Encoder().encode
_envelopes = msgspec.msgpack.Decoder(_Envelope)
_bodies = {name: msgspec.msgpack.Decoder(kind.body) for name, kind in KINDS.items()}


def seal(kind: str, key: NodeKey, body: Body, sign: Sign, work: int = 0) -> bytes:
    """Raises UsageError("record.oversized"). Costs about 2**work hashes (20 bits: a second)."""
    encoded = _encode(body)
    signature = sign(_signed(kind, encoded))
    blob = _encode(_Envelope(kind, key, encoded, signature, _find_stamp(signature, work)))
    if len(blob) > RECORD_MAX:
        raise UsageError("record.oversized", f"the {kind} takes {len(blob)} bytes; at most {RECORD_MAX} fit")
    return blob


def open_record(blob: bytes, verify: Verify, now: Instant, kinds: Mapping[str, Kind] = KINDS) -> Record:
    """Raises PeerError("record.oversized" | "malformed" | "out-of-range" | "expired" | "horizon" | "signature").

    The signature, by far the dearest check, comes last."""
    if len(blob) > RECORD_MAX:
        raise PeerError("record.oversized", f"a record of {len(blob)} bytes; {RECORD_MAX} is the limit")
    envelope = decoded("record.malformed", "not a record", _envelopes, blob)
    kind = kinds.get(envelope.kind)
    if kind is None or len(envelope.key) != 32 or len(envelope.signature) != 64:
        raise PeerError(
            "record.malformed", "a record of unknown kind, or with a key or signature of odd length"
        )
    body = decoded("record.malformed", "not a record", _bodies[envelope.kind], envelope.body)
    key = NodeKey(envelope.key)
    if not (0 <= envelope.stamp < 1 << 64 and 0 <= body.seq < 1 << 63 and kind.is_sane(key, body)):
        raise PeerError("record.out-of-range", f"a {envelope.kind} record with an impossible value")
    _check_times(body, kind.lifetime, now)
    if not verify(key, _signed(envelope.kind, envelope.body), envelope.signature):
        raise PeerError("record.signature", "a record that its publisher did not sign")
    return Record(
        kind=envelope.kind,
        key=key,
        seq=body.seq,
        expires=body.expires,
        topic=kind.topic(key, body),
        body=body,
        work=_work(envelope.signature, envelope.stamp),
        blob=blob,
        tag=tag(blob),
    )


def tag(blob: bytes) -> bytes:
    return hashlib.sha256(blob).digest()[:8]


def check_place(record: Record, topic: bytes) -> None:
    if record.topic != topic:
        raise PeerError("record.misplaced", "a record under a topic that is not its own")


def _check_times(body: Body, lifetime: Duration, now: Instant) -> None:
    if body.expires <= now:
        raise PeerError("record.expired", "a record whose time is over")
    if body.expires > now + lifetime + CLOCK_SLACK or body.seq > now + CLOCK_SLACK:
        raise PeerError("record.horizon", "a record from the future, or that wants to stay too long")


def _signed(kind: str, body: bytes) -> bytes:
    return CONTEXT + kind.encode() + b"\0" + body


# -- stamps --------------------------------------------------------------------------------------------
def _work(signature: bytes, stamp: int) -> int:
    digest = hashlib.sha256(CONTEXT + b"stamp\0" + signature + stamp.to_bytes(8, "big")).digest()
    return 256 - int.from_bytes(digest, "big").bit_length()


def _find_stamp(signature: bytes, work: int) -> int:
    stamp = 0
    while work and _work(signature, stamp) < work:
        stamp += 1
    return stamp
