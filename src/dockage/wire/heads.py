"""Heads of HTTP/1.1 messages as values, and the bytes of them: what the Engine API needs of both ends.

Most blocks of header lines come again, as clients and engines ask and answer in the same words: what was made of the
last ones is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from dockage.domain.errors import PeerError
from dockage.protocol.http1 import (
    FIELDS,
    HEADERS_MAX,
    NO_BODY,
    REQUEST,
    STATUS,
    UNTIL_CLOSE,
    Framing,
    framing_of,
)

HEAD_LIMIT = 64 << 10
"""Some precedents: node.js 16 KiB, nginx 32 KiB, Go 1 MiB; X-Registry-Auth may take 10 KiB."""
KEPT, KEPT_SIZE = 256, 1 << 10
"""Blocks of header lines, of at most so many bytes, that are remembered with what was made of them."""


class Headers(tuple[tuple[str, str], ...]):
    """Name-value pairs in order; names are lower case."""

    __slots__ = ()

    def get(self, name: str, default: str = "") -> str:
        """The first value of *name* (lower case)."""
        return next((value for key, value in self if key == name), default)

    def without(self, *names: str) -> Headers:
        return Headers(pair for pair in self if pair[0] not in names)


HeaderPairs = Iterable[tuple[str, str]]


class Fields(NamedTuple):
    """What a block of header lines says."""

    headers: Headers
    hosts: int
    framing: Framing | None
    """None = not said."""
    keep: bool
    """The connection goes on after this message."""
    expects: bool
    """A ``100 Continue`` is waited for."""


class RequestHead(NamedTuple):
    method: str
    target: str
    fields: Fields
    framing: Framing
    minor: bytes


class ResponseHead(NamedTuple):
    status: int
    headers: Headers
    framing: Framing
    keep: bool


def may_begin(data: bytes) -> bool:
    """Whether *data* can become a head: a TLS client would be waited for until it has said 64 KiB."""
    return data[:1].isalpha()


def parse_request(head: bytes) -> RequestHead:
    """*head* with the empty line at its end. Raises PeerError("http.malformed" | "http.framing")."""
    match = REQUEST.match(head)
    if match is None:
        raise _malformed("the first line is none of HTTP/1.1")
    method, target, minor = match.groups()
    fields = _fields(head[match.end() : -2], minor)
    if fields.hosts != 1 and (fields.hosts or minor == b"1"):
        raise _malformed("a request names one host")
    return RequestHead(method.decode(), target.decode(), fields, fields.framing or NO_BODY, minor)


def parse_response(head: bytes, method: str) -> ResponseHead:
    """To a request of *method*. Raises as ``parse_request``."""
    match = STATUS.match(head)
    if match is None:
        raise _malformed("the first line is none of HTTP/1.1")
    status, minor = int(match[3]), match[1]
    fields = _fields(head[match.end() : -2], minor)
    if method == "HEAD" or status < 200 or status in (204, 304):
        framing = NO_BODY
    else:
        framing = UNTIL_CLOSE if fields.framing is None else fields.framing
    return ResponseHead(status, fields.headers, framing, fields.keep and not framing.until_close)


def _fields(block: bytes, minor: bytes) -> Fields:
    return _read(block, minor) if len(block) <= KEPT_SIZE else _read.__wrapped__(block, minor)


@lru_cache(maxsize=KEPT)
def _read(block: bytes, minor: bytes) -> Fields:
    if FIELDS.fullmatch(block) is None:
        raise _malformed("header lines that are none of HTTP/1.1")
    if block.count(b"\n") > HEADERS_MAX:
        raise _malformed(f"more than {HEADERS_MAX} header lines")
    pairs = [line.split(":", 1) for line in block.decode("latin-1").split("\r\n")[:-1]]
    headers = Headers((name.lower(), value.strip(" \t")) for name, value in pairs)
    lengths, codings, connection = (_all(headers, name) for name in _FRAMING)
    words = {word.strip(b" \t").lower() for value in connection for word in value.split(b",")}
    return Fields(
        headers,
        len(_all(headers, "host")),
        framing_of(lengths, codings, minor),
        minor == b"1" and b"close" not in words,
        headers.get("expect").lower() == "100-continue",
    )


_FRAMING = ("content-length", "transfer-encoding", "connection")


def _all(headers: Headers, name: str) -> list[bytes]:
    return [value.encode("latin-1") for key, value in headers if key == name]


# -- written -------------------------------------------------------------------------------------------
_REASONS = {200: "OK", 201: "Created", 204: "No Content", 304: "Not Modified", 400: "Bad Request"}
SWITCH = b"HTTP/1.1 101 UPGRADED\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def request_bytes(method: str, target: str, headers: HeaderPairs) -> bytes:
    """A header that would break out of its line comes from a peer's data, so it is the peer's fault. Raises
    PeerError("http.malformed")."""
    line = f"{method} {target} HTTP/1.1\r\n".encode("latin-1", "replace")
    if REQUEST.fullmatch(line) is None:
        raise _malformed("this request line cannot be sent")
    return line + lines_of(headers) + b"\r\n"


def status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\n".encode()


def lines_of(headers: HeaderPairs) -> bytes:
    """Raises as ``request_bytes``."""
    lines = [f"{name}: {value}\r\n" for name, value in headers]
    block = "".join(lines).encode("latin-1", "replace")
    if FIELDS.fullmatch(block) is None or block.count(b"\n") != len(lines):
        raise _malformed("these header lines cannot be sent")
    return block


def _malformed(why: str) -> PeerError:
    return PeerError("http.malformed", why)
