"""Heads of HTTP/1.1 as a gateway forwards them: strict, bounded, rewritten. RFC 9110 and 9112.

A request that two parsers could read differently is refused here, so that none is smuggled behind the gateway. What is
said to one hop only stays there; what would tell where a replica is never leaves.

What follows from a block of header lines depends on nothing but its bytes, and most blocks come again: a client asks in
the same words for another path, and many answers begin alike. So what was made of the last ones is kept, in the words
in which it goes on.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import msgspec

from dockage.domain.deployment import normal_host
from dockage.domain.errors import PeerError

from .http1 import FIELDS, HEADERS_MAX, NO_BODY, STATUS, UNTIL_CLOSE, Framing, framing_of

HEAD_MAX = 32 << 10
TARGET_MAX = 16 << 10
KEPT, KEPT_SIZE = 512, 2 << 10
"""Blocks of header lines, of at most so many bytes, that are remembered with what was made of them; as many again of
answers."""

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
_REQUEST = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) (/[!-~]*|\*) HTTP/1\.([01])\r\n")
_HOST = re.compile(rb"([A-Za-z0-9.-]{1,254})(?::[0-9]{1,5})?")
_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization"}
    | {b"te", b"trailer", b"upgrade", b"expect", b"host", b"http2-settings"}
)
_FORWARDED = frozenset(
    {b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-real-ip"}
)
_TELLTALE = frozenset({b"via", b"alt-svc", b"x-served-by", b"x-backend-server", b"x-upstream"}) | _FORWARDED
"""Of answers: what could name a machine behind the gateway, or send clients past it."""
_FRAMES = frozenset({b"content-length", b"transfer-encoding"})
_NOT_HIDDEN = _FRAMES | {b"host", b"close", b"keep-alive", b"upgrade"}
"""What ``Connection`` cannot make this hop's, because it frames or routes a message, or is no header there."""
_TO_REPLICA, _TO_REPLICA_FROM_STRANGERS = _HOP, _HOP | _FORWARDED
_TO_PUBLIC = _HOP - {b"host", b"expect"} | _TELLTALE


def _lines_of(names: frozenset[bytes]) -> re.Pattern[bytes]:
    """Finds the header lines that matter in a block in lower case with a line feed before it. The others pass as they
    are, so what is not looked at costs nothing."""
    return re.compile(b"\\n(" + b"|".join(map(re.escape, sorted(names))) + b"):[^\\r]*\\r")


_OF_REQUESTS, _OF_RESPONSES = _lines_of(_HOP | _FORWARDED | _FRAMES), _lines_of(_TO_PUBLIC | _FRAMES)


class Lines(NamedTuple):
    """Header lines, each with its line end."""

    block: bytes
    told: tuple[tuple[bytes, bytes, int, int], ...]
    """Those that we act on: (name in lower case, value, its line's begin, its end), in order."""
    connection: frozenset[bytes]
    """The words of ``Connection``."""

    def values(self, name: bytes) -> list[bytes]:
        return [each[1] for each in self.told if each[0] == name]

    def without(self, dropped: frozenset[bytes]) -> bytes:
        kept, at = [], 0
        for name, _, begin, end in self.told:
            if name in dropped:
                kept.append(self.block[at:begin])
                at = end
        block = b"".join(kept) + self.block[at:]
        named = self.connection - _NOT_HIDDEN
        return _without(block, named) if named else block


class RequestFields(NamedTuple):
    """What the header lines of a request say, and what a replica gets of them."""

    host: str
    """Normalised, without a port."""
    host_value: bytes
    kept: bytes
    """From our own face: all that goes on behind the target."""
    kept_of_strangers: bytes
    """Without what they say of who they are, and without the empty line."""
    framing: Framing
    keep_alive: bool
    upgrade: bytes
    """The protocol that is asked for (``websocket``), or b""."""
    expects: bool
    """It waits for a ``100 Continue``."""
    is_plain: bool
    """It has no body, and wants an answer and nothing else of this connection."""


class RequestHead(msgspec.Struct, frozen=True, gc=False):
    method: bytes
    target: bytes
    fields: RequestFields

    @property
    def host(self) -> str:
        return self.fields.host

    @property
    def framing(self) -> Framing:
        return self.fields.framing

    @property
    def keep_alive(self) -> bool:
        return self.fields.keep_alive

    @property
    def upgrade(self) -> bytes:
        return self.fields.upgrade

    @property
    def expects(self) -> bool:
        return self.fields.expects

    @property
    def may_repeat(self) -> bool:
        return self.method in IDEMPOTENT and not self.fields.upgrade


class ResponseHead(NamedTuple):
    status: int
    kept: bytes
    """The first line, and the header lines that the public gets."""
    framing: Framing
    keep_alive: bool
    upgrade: bytes


def parse_request(head: bytes) -> RequestHead:
    """*head* with the empty line at its end. Raises PeerError("http.malformed" | "http.host" | "http.framing")."""
    match = _begin(head, _REQUEST)
    method, target, minor = match.groups()
    if len(target) > TARGET_MAX or (target == b"*" and method != b"OPTIONS") or method == b"CONNECT":
        # behind a 200 to CONNECT comes no HTTP (RFC 9110 §9.3.6), but the replica's connection would be used again
        raise PeerError("http.malformed", "a request names a path here")
    block = head[match.end() : -2]
    read = _request_fields if len(block) <= KEPT_SIZE else _request_fields.__wrapped__
    return RequestHead(method, target, read(block, minor))


def parse_response(head: bytes, method: bytes) -> ResponseHead:
    """To a request of *method*. Raises PeerError("http.malformed" | "http.framing")."""
    read = _response if len(head) <= KEPT_SIZE else _response.__wrapped__
    return read(head, method == b"HEAD")


def _begin(head: bytes, line: re.Pattern[bytes]) -> re.Match[bytes]:
    """The first line."""
    if len(head) > HEAD_MAX or not head.endswith(b"\r\n\r\n"):
        raise PeerError("http.malformed", "a head that is too long or does not end")
    match = line.match(head)
    if match is None:
        raise PeerError("http.malformed", "the first line is none of HTTP/1.1")
    return match


@lru_cache(maxsize=KEPT)
def _request_fields(block: bytes, minor: bytes) -> RequestFields:
    lines = _split(block, _OF_REQUESTS)
    hosts = lines.values(b"host")
    if len(hosts) != 1:
        raise PeerError("http.host", "a request names one host")
    framing = _framing(lines, minor)
    keeps, expects = _keeps(lines, minor), bool(lines.values(b"expect"))
    upgrade = _upgrade(lines) if framing is None else b""
    begin = b" HTTP/1.1\r\nhost: %s\r\n" % hosts[0]
    end = b"connection: upgrade\r\nupgrade: %s\r\n" % upgrade if upgrade else b""
    return RequestFields(
        _host(hosts[0]),
        hosts[0],
        begin + lines.without(_TO_REPLICA) + end + b"\r\n",
        begin + lines.without(_TO_REPLICA_FROM_STRANGERS) + end,
        NO_BODY if framing is None else framing,
        keeps,
        upgrade,
        expects,
        keeps and (framing is None or framing == NO_BODY) and not (upgrade or expects),
    )


@lru_cache(maxsize=KEPT)
def _response(head: bytes, is_head: bool) -> ResponseHead:
    match = _begin(head, STATUS)
    minor, line, status = match[1], match[2], int(match[3])
    lines = _split(head[match.end() : -2], _OF_RESPONSES)
    framing = _framing(lines, minor)
    if is_head or status < 200 or status in (204, 304):
        framing = NO_BODY
    elif framing is None:
        framing = UNTIL_CLOSE
    kept = b"HTTP/1.1%s\r\n%s" % (line, lines.without(_TO_PUBLIC))
    keeps = _keeps(lines, minor) and not framing.until_close
    return ResponseHead(status, kept, framing, keeps, _upgrade(lines))


def request_bytes(head: RequestHead, client: str, scheme: str, *, trusted: bool) -> bytes:
    """As the replica gets it. *trusted*: our own face spoke to the client and says so in ``X-Forwarded-*``; else what
    the client says of that is dropped, and *client* and *scheme* are what we know."""
    of = head.fields
    if trusted:
        return b"%s %s%s" % (head.method, head.target, of.kept)
    told = (head.method, head.target, of.kept_of_strangers, client.encode(), scheme.encode(), of.host_value)
    return b"%s %s%sx-forwarded-for: %s\r\nx-forwarded-proto: %s\r\nx-forwarded-host: %s\r\n\r\n" % told


def response_bytes(head: ResponseHead, *, keep_alive: bool) -> bytes:
    """As the client gets it."""
    if head.status == 101:
        return head.kept + b"connection: upgrade\r\nupgrade: %s\r\n\r\n" % head.upgrade
    if head.status < 200:
        return head.kept + b"\r\n"
    return head.kept + (b"connection: keep-alive\r\n\r\n" if keep_alive else b"connection: close\r\n\r\n")


# -- parts -------------------------------------------------------------------------------------------
def _split(block: bytes, wanted: re.Pattern[bytes]) -> Lines:
    if FIELDS.fullmatch(block) is None:
        raise PeerError("http.malformed", "header lines that are none of HTTP/1.1")
    if block.count(b"\n") > HEADERS_MAX:
        raise PeerError("http.malformed", f"more than {HEADERS_MAX} header lines")
    # the lower case is one byte ahead of the block, so a match begins where its line begins
    told = [
        (match[1], block[match.end(1) : match.end() - 2].strip(b" \t"), match.start(), match.end())
        for match in wanted.finditer(b"\n" + block.lower())
    ]
    words = [value for name, value, _, _ in told if name == b"connection"]
    return Lines(block, tuple(told), _tokens(words) if words else frozenset())


@lru_cache(maxsize=1024)
def _host(value: bytes) -> str:
    match = _HOST.fullmatch(value)
    host = normal_host(match[1].decode()) if match else ""
    if not host:
        raise PeerError("http.host", "a request names one host")
    return host


def _framing(lines: Lines, minor: bytes) -> Framing | None:
    return framing_of(lines.values(b"content-length"), lines.values(b"transfer-encoding"), minor)


def _tokens(values: list[bytes]) -> frozenset[bytes]:
    return frozenset(token.strip(b" \t").lower() for value in values for token in value.split(b","))


def _keeps(lines: Lines, minor: bytes) -> bool:
    return b"close" not in lines.connection and (minor == b"1" or b"keep-alive" in lines.connection)


def _upgrade(lines: Lines) -> bytes:
    """One protocol only, and never h2c: it would carry requests that we do not see."""
    if b"upgrade" not in lines.connection:
        return b""
    wanted = lines.values(b"upgrade")
    if len(wanted) != 1 or b"," in wanted[0] or not wanted[0] or wanted[0].lower().startswith(b"h2"):
        return b""
    return wanted[0]


def _without(block: bytes, names: frozenset[bytes]) -> bytes:
    lines = block.split(b"\r\n")[:-1]
    return b"".join(line + b"\r\n" for line in lines if line.partition(b":")[0].lower() not in names)
