"""What is said to an index of offers: one request and one answer a stream. Spec: docs/spec/03b-index.md.

Counterpart: daemon/indexing.py. Decoding is the only gate: behind it all sizes and ranges hold. What an answer says of
offers is proven by the records in it; how many there are is the index's word alone.
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import msgspec

from dockage.domain.errors import PeerError
from dockage.domain.query import MOST_MAX, Query, Rank

from .reading import decoded
from .records import RECORD_MAX

REQUEST_MAX = 24 * 1024
ANSWER_MAX = 160 * 1024
PAGE_BYTES = 128 * 1024
"""Records in one answer; the asker asks again for the rest."""
ANNOUNCED_MAX = 8


class Ask(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="ask"):
    """Answered by Selection."""

    query: Query


class Announce(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="announce"):
    """A provider's own newest records. Answered by Taken."""

    records: tuple[bytes, ...]


class Selection(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="selection"):
    records: tuple[bytes, ...]
    """In the order of the query."""
    more: bool
    last: Rank | None
    """Of the last record: the ``after`` of the next page."""
    fitting: int
    """Of ``known``, how many fit."""
    known: int


class Taken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="taken"):
    taken: tuple[bool, ...]


Request: TypeAlias = Ask | Announce
Answer: TypeAlias = Selection | Taken
T = TypeVar("T")

encode = msgspec.msgpack.Encoder().encode
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def decode_request(frame: bytes) -> Request:
    """Raises PeerError("index.oversized" | "index.malformed" | "index.out-of-range")."""
    request = _decode(_requests, frame, REQUEST_MAX)
    if isinstance(request, Ask):
        sane = request.query.is_sane
    else:
        sane = 0 < len(request.records) <= ANNOUNCED_MAX and all(
            len(x) <= RECORD_MAX for x in request.records
        )
    if not sane:
        raise PeerError("index.out-of-range", f"a {type(request).__name__} with an impossible value")
    return request


def decode_answer(frame: bytes) -> Answer:
    """Raises PeerError("index.oversized" | "index.malformed" | "index.out-of-range")."""
    answer = _decode(_answers, frame, ANSWER_MAX)
    if isinstance(answer, Selection):
        sane = len(answer.records) <= MOST_MAX and 0 <= answer.fitting <= answer.known < 1 << 40
        sane = sane and all(len(x) <= RECORD_MAX for x in answer.records)
    else:
        sane = len(answer.taken) <= ANNOUNCED_MAX
    if not sane:
        raise PeerError("index.out-of-range", f"a {type(answer).__name__} with an impossible value")
    return answer


def _decode(decoder: msgspec.msgpack.Decoder[T], frame: bytes, limit: int) -> T:
    if len(frame) > limit:
        raise PeerError("index.oversized", f"{len(frame)} bytes to or from an index; {limit} is the limit")
    return decoded("index.malformed", "nothing that is said to an index", decoder, frame)
