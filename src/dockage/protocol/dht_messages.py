"""What market nodes ask each other: one request and one answer per stream. Spec: docs/spec/03-dht.md.

Counterpart: adapters/dht. Decoding is the only gate: behind it all sizes and ranges hold.
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import msgspec

from dockage.domain.errors import PeerError
from dockage.domain.query import MOST_MAX, Query

from .kademlia import SALTS, Contact, K
from .reading import decoded
from .records import RECORD_MAX

REQUEST_MAX = 48 * 1024
ANSWER_MAX = 160 * 1024
PAGE_BYTES = 128 * 1024
"""Records in one listing; a reader asks again for the rest."""
PUT_MAX = 8
"""Records in one put."""
KNOWN_MAX = 4096
TAG = 8


class Find(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="find"):
    """Answered by Listing without records: the contacts closest to *target*."""

    me: Contact | None
    """The asker, if it is a market node itself."""
    target: bytes


class Get(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="get"):
    """Answered by Listing: contacts closest to *target*, and records under *topic*."""

    me: Contact | None
    target: bytes
    topic: bytes
    after: bytes
    """Only records of publishers with a greater key; b"" for the first page."""
    known: bytes
    """The 8-byte tags of records that the asker has already, one after the other."""


class Pick(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="pick"):
    """Answered by Best: contacts closest to each of *targets*, and of the offers under *topic* the best for *query*."""

    me: Contact | None
    targets: tuple[bytes, ...]
    """The topic's places, 1 to SALTS."""
    topic: bytes
    query: Query


class Put(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="put"):
    """Answered by Taken."""

    me: Contact | None
    topic: bytes
    records: tuple[bytes, ...]


class Listing(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="listing"):
    contacts: tuple[Contact, ...]
    records: tuple[bytes, ...] = ()
    more: bool = False
    last: bytes = b""
    """The ``after`` of the next page."""


class Best(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="best"):
    contacts: tuple[Contact, ...]
    records: tuple[bytes, ...]
    """In the order of the query."""
    more: bool
    """Others fit that stand behind the last of them."""
    fitting: int
    """Of ``known``, how many fit: the holder's word alone."""
    known: int


class Taken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="taken"):
    taken: tuple[bool, ...]


Request: TypeAlias = Find | Get | Pick | Put
Answer: TypeAlias = Listing | Best | Taken

T = TypeVar("T")

encode = msgspec.msgpack.Encoder().encode
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def decode_request(frame: bytes) -> Request:
    """Raises PeerError("dht.oversized" | "dht.malformed" | "dht.out-of-range")."""
    request, sane = _decode(_requests, frame, REQUEST_MAX), False
    match request:
        case Find(target=target):
            sane = len(target) == 32
        case Get(target=target, topic=topic, after=after, known=known):
            sane = len(target) == len(topic) == 32 and len(after) in (0, 32)
            sane = sane and len(known) % TAG == 0 and len(known) <= KNOWN_MAX * TAG
        case Pick(targets=targets, topic=topic, query=query):
            sane = 0 < len(targets) <= SALTS and all(len(place) == 32 for place in (*targets, topic))
            sane = sane and query.is_sane
        case Put(topic=topic, records=records):
            sane = len(topic) == 32 and 0 < len(records) <= PUT_MAX
    if not sane or (request.me is not None and not request.me.is_sane):
        raise PeerError("dht.out-of-range", f"a {type(request).__name__} with an impossible value")
    return request


def decode_answer(frame: bytes) -> Answer:
    """Raises PeerError("dht.oversized" | "dht.malformed" | "dht.out-of-range")."""
    answer, sane = _decode(_answers, frame, ANSWER_MAX), False
    match answer:
        case Listing(contacts=contacts, records=records, last=last):
            sane = _are_sane(contacts, K) and _are_small(records) and len(last) in (0, 32)
        case Best(contacts=contacts, records=records, fitting=fitting, known=known):
            sane = _are_sane(contacts, SALTS * K) and _are_small(records) and len(records) <= MOST_MAX
            sane = sane and 0 <= fitting <= known < 1 << 40
        case Taken(taken=taken):
            sane = len(taken) <= PUT_MAX
    if not sane:
        raise PeerError("dht.out-of-range", f"a {type(answer).__name__} with an impossible value")
    return answer


def _are_sane(contacts: tuple[Contact, ...], most: int) -> bool:
    return len(contacts) <= most and all(contact.is_sane for contact in contacts)


def _are_small(records: tuple[bytes, ...]) -> bool:
    return all(len(blob) <= RECORD_MAX for blob in records)


def _decode(decoder: msgspec.msgpack.Decoder[T], frame: bytes, limit: int) -> T:
    if len(frame) > limit:
        raise PeerError("dht.oversized", f"a message of {len(frame)} bytes; {limit} is the limit")
    return decoded("dht.malformed", "not a message of the market", decoder, frame)
