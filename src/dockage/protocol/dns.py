"""DNS messages, bytes and values: as much as an authoritative server needs (RFC 1035, 3596, 2782, 6891).

A query is read into a ``Query``, once and bounded; answers are written without looking back, so that each costs some
microseconds and nothing needs to be cached. Names are lower case, without the dot at the end; the root is "".
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from typing import NamedTuple

from dockage.domain.errors import PeerError

A, NS, CNAME, SOA, TXT, AAAA, SRV, OPT, AXFR, ANY = 1, 2, 5, 6, 16, 28, 33, 41, 252, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16

UDP_MAX = 1232
"""Bytes of an answer over UDP, whatever the asker says it takes: what passes the internet in one piece (DNS flag day
2020). Without EDNS it is ``PLAIN_MAX``."""
PLAIN_MAX = 512
MESSAGE_MAX = 65_535
NAME_MAX = 255
"""Bytes of an encoded name (RFC 1035 §2.3.4)."""
JUMPS_MAX = 16
"""Compression pointers in one name; each must lead back."""

_HEADER = struct.Struct(">HHHHHH")
_FIXED = struct.Struct(">HHIH")
_AUTHORITATIVE, _TRUNCATED, _RECURSION_WANTED, _RESPONSE = 0x0400, 0x0200, 0x0100, 0x8000
_OPCODE = 0x7800


class Record(NamedTuple):
    """A resource record of class IN."""

    name: str
    kind: int
    ttl: int
    """Seconds."""
    data: bytes
    """As on the wire, names in it uncompressed."""


class Query(NamedTuple):
    id: int
    flags: int
    question: bytes
    """As it came: resolvers compare even the case of its letters."""
    name: str
    kind: int
    room: int
    """Bytes that an answer over UDP may have."""
    edns: bool
    fault: int = NOERROR
    """What is answered without looking further."""


# -- reading -----------------------------------------------------------------------------------------
def read_query(message: bytes) -> Query | None:
    """None for what deserves no answer: it has no header, or is an answer itself. A header with nonsense behind it
    gets ``fault``."""
    if not 12 <= len(message) <= MESSAGE_MAX:
        return None
    id_, flags, questions, answers, authorities, additional = _HEADER.unpack_from(message)
    if flags & _RESPONSE:
        return None
    bare = Query(id_, flags, b"", "", 0, PLAIN_MAX, False)
    if flags & _OPCODE:
        return bare._replace(fault=NOTIMP)
    if (questions, answers, authorities) != (1, 0, 0) or additional > 2:
        return bare._replace(fault=FORMERR)
    try:
        return _read_question(message, bare, additional)
    except (PeerError, struct.error):
        return bare._replace(fault=FORMERR)


def _read_question(message: bytes, bare: Query, additional: int) -> Query:
    name, end = read_name(message, 12, jumps=0)
    kind, class_ = struct.unpack_from(">HH", message, end)
    query = bare._replace(question=message[12 : end + 4], name=name, kind=kind)
    if class_ not in (IN, ANY):
        return query._replace(fault=REFUSED)
    return _read_edns(message, query, end + 4, additional)


def _read_edns(message: bytes, query: Query, at: int, count: int) -> Query:
    for _ in range(count):
        name, at = read_name(message, at, jumps=0)
        kind, size, extended, length = _FIXED.unpack_from(message, at)
        at += _FIXED.size + length
        if at > len(message):
            raise PeerError("dns.malformed", "a record that is longer than its message")
        if kind == OPT:
            if name or query.edns:
                raise PeerError("dns.malformed", "EDNS is said once, of the root (RFC 6891 §6.1.1)")
            fault = BADVERS if extended >> 16 & 0xFF else NOERROR
            query = query._replace(edns=True, room=max(PLAIN_MAX, min(size, UDP_MAX)), fault=fault)
    return query


def read_name(message: bytes, at: int, jumps: int = JUMPS_MAX) -> tuple[str, int]:
    """The name at *at*, and where what follows it begins. Raises PeerError("dns.malformed")."""
    labels, size, after, limit = list[bytes](), 1, 0, at
    while True:
        if at >= len(message):
            raise PeerError("dns.malformed", "a name that runs out of its message")
        length = message[at]
        if length & 0xC0 == 0xC0 and at + 1 < len(message) and jumps:
            after, jumps = after or at + 2, jumps - 1
            at = (length & 0x3F) << 8 | message[at + 1]
            if at >= limit:
                raise PeerError("dns.malformed", "a pointer that does not lead back")
            limit = at
            continue
        if length & 0xC0:
            raise PeerError("dns.malformed", "a label of unknown kind")
        at += 1
        if not length:
            return _as_text(labels), after or at
        labels.append(message[at : at + length])
        at, size = at + length, size + length + 1
        if size > NAME_MAX:
            raise PeerError("dns.malformed", f"a name has at most {NAME_MAX} bytes")


def _as_text(labels: Sequence[bytes]) -> str:
    """Any byte may stand in a label; a dot would make two of it."""
    name = b".".join(labels)
    if name.count(b".") > max(0, len(labels) - 1):
        raise PeerError("dns.malformed", "a dot inside of a label")
    return name.lower().decode("latin-1")


def read_answers(message: bytes, limit: int) -> list[Record]:
    """The answer section of a response with at most *limit* records. Raises PeerError("dns.malformed")."""
    try:
        _, flags, questions, count, _, _ = _HEADER.unpack_from(message)
        if not flags & _RESPONSE or questions or count > limit:
            raise PeerError(
                "dns.malformed", f"not a response without question and with up to {limit} answers"
            )
        found, at = list[Record](), 12
        for _ in range(count):
            record, at = _read_record(message, at)
            found.append(record)
        return found
    except struct.error:
        raise PeerError("dns.malformed", "a response that breaks off") from None


def _read_record(message: bytes, at: int) -> tuple[Record, int]:
    name, at = read_name(message, at)
    kind, class_, ttl, length = _FIXED.unpack_from(message, at)
    at += _FIXED.size
    end = at + length
    if end > len(message) or class_ & 0x7FFF != IN:
        raise PeerError("dns.malformed", "a record that breaks off, or is of another class than IN")
    return Record(name, kind, min(ttl, 1 << 31), _read_data(message, kind, at, end)), end


def _read_data(message: bytes, kind: int, at: int, end: int) -> bytes:
    prefix = 6 if kind == SRV else 0
    if kind not in (NS, CNAME, SRV):
        return message[at:end]
    target, after = read_name(message, at + prefix)
    if after != end:
        raise PeerError("dns.malformed", "a record whose name does not fill it")
    return message[at : at + prefix] + encode_name(target)


# -- writing -----------------------------------------------------------------------------------------
def encode_name(name: str) -> bytes:
    """*name* comes from ``read_name`` or is a checked host name; its labels have 1 to 63 bytes."""
    if not name:
        return b"\0"
    labels = name.encode("latin-1").split(b".")
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def address(text: str) -> tuple[int, bytes]:
    """(A or AAAA, its data). Raises ValueError."""
    ip = ipaddress.ip_address(text)
    return (A if ip.version == 4 else AAAA), ip.packed


def text(line: str) -> bytes:
    """TXT data: strings of up to 255 bytes."""
    data = line.encode()
    parts = [data[at : at + 255] for at in range(0, len(data), 255)] or [b""]
    return b"".join(bytes((len(part),)) + part for part in parts)


def service(port: int, target: str) -> bytes:
    """SRV data: the only one of its kind."""
    return struct.pack(">HHH", 0, 0, port) + encode_name(target)


def authority(primary: str, contact: str, serial: int, ttl: int) -> bytes:
    """SOA data. *ttl* is also how long "there is no such name" may be believed (RFC 2308)."""
    times = struct.pack(">IIIII", serial & 0xFFFFFFFF, 3600, 600, 86_400, ttl)
    return encode_name(primary) + encode_name(contact) + times


def write_response(
    query: Query, code: int, answers: Sequence[Record] = (), authorities: Sequence[Record] = (), room: int = 0
) -> bytes:
    """What does not fit into *room* bytes (over UDP: ``query.room``) is left out and the message marked, so that it is
    asked again over TCP."""
    body = b"".join(_write(query, record) for record in (*answers, *authorities))
    edns = _OPT_BAD if code == BADVERS else _OPT if query.edns else b""
    fits = 12 + len(query.question) + len(body) + len(edns) <= (room or query.room)
    flags = _RESPONSE | query.flags & (_OPCODE | _RECURSION_WANTED) | code & 0xF
    flags |= (_AUTHORITATIVE if code in (NOERROR, NXDOMAIN) else 0) | (0 if fits else _TRUNCATED)
    counts = (len(answers), len(authorities)) if fits else (0, 0)
    header = _HEADER.pack(query.id, flags, 1 if query.question else 0, *counts, 1 if edns else 0)
    return header + query.question + (body if fits else b"") + edns


def write_truncated(query: Query) -> bytes:
    """ "Ask again over TCP"."""
    return write_response(query, NOERROR, room=1)


def write_answers(records: Sequence[Record]) -> bytes:
    """A response that nobody asked for: the form in which pkarr keeps a zone."""
    none = Query(0, 0, b"", "", 0, MESSAGE_MAX, False)
    return write_response(none, NOERROR, records)


_OPT = b"\0" + _FIXED.pack(OPT, UDP_MAX, 0, 0)
_OPT_BAD = b"\0" + _FIXED.pack(OPT, UDP_MAX, (BADVERS >> 4) << 24, 0)


def _write(query: Query, record: Record) -> bytes:
    name = b"\xc0\x0c" if record.name == query.name and query.question else encode_name(record.name)
    return name + _FIXED.pack(record.kind, IN, record.ttl, len(record.data)) + record.data
