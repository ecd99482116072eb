"""Heads of HTTP/1.1 as a gateway forwards them: strict, bounded, rewritten. RFC 9110 and 9112.

A request that two parsers could read differently is refused here, so that none is smuggled behind the gateway. What is
said to one hop only stays there; what would tell where a replica is never leaves.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from dockage.domain.deployment import normal_host
from dockage.domain.errors import PeerError

HEAD_MAX = 32 << 10
HEADERS_MAX = 128
TARGET_MAX = 16 << 10
LENGTH_MAX = 1 << 50

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
_FIELDS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)*")
_REQUEST = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!-~]+) HTTP/1\.([01])")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?")
_HOST = re.compile(rb"([A-Za-z0-9.-]{1,254})(?::[0-9]{1,5})?")
_LENGTH = re.compile(rb"[0-9]{1,16}")
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


class Framing(NamedTuple):
    """How a body ends."""

    length: int = 0
    """-1 = not by a length."""
    chunked: bool = False

    @property
    def until_close(self) -> bool:
        return self.length < 0 and not self.chunked


NO_BODY, UNTIL_CLOSE, CHUNKED = Framing(), Framing(-1), Framing(-1, chunked=True)


class RequestHead(NamedTuple):
    method: bytes
    target: bytes
    host: str
    """Normalised, without a port."""
    lines: Lines
    framing: Framing
    keep_alive: bool
    upgrade: bytes
    """The protocol that is asked for (``websocket``), or b""."""
    expects: bool
    """It waits for a ``100 Continue``."""

    @property
    def may_repeat(self) -> bool:
        return self.method in IDEMPOTENT and not self.upgrade


class ResponseHead(NamedTuple):
    status: int
    line: bytes
    lines: Lines
    framing: Framing
    keep_alive: bool
    upgrade: bytes


def parse_request(head: bytes) -> RequestHead:
    """*head* with the empty line at its end. Raises PeerError("http.malformed" | "http.host" | "http.framing")."""
    line, lines = _split(head, _OF_REQUESTS)
    match = _REQUEST.fullmatch(line)
    if match is None or len(match[2]) > TARGET_MAX:
        raise PeerError("http.malformed", "the first line is none of HTTP/1.1")
    method, target, minor = match.groups()
    if not (target.startswith(b"/") or (target == b"*" and method == b"OPTIONS")):
        raise PeerError("http.malformed", "a request names a path here")
    hosts = lines.values(b"host")
    if len(hosts) != 1:
        raise PeerError("http.host", "a request names one host")
    framing = _framing(lines, minor)
    return RequestHead(
        method,
        target,
        _host(hosts[0]),
        lines,
        NO_BODY if framing is None else framing,
        _keeps(lines, minor),
        _upgrade(lines) if framing is None else b"",
        bool(lines.values(b"expect")),
    )


def parse_response(head: bytes, method: bytes) -> ResponseHead:
    """To a request of *method*. Raises PeerError("http.malformed" | "http.framing")."""
    line, lines = _split(head, _OF_RESPONSES)
    match = _STATUS.fullmatch(line)
    if match is None:
        raise PeerError("http.malformed", "the replica's first line is none of HTTP/1.1")
    status, minor = int(match[2]), match[1]
    framing = _framing(lines, minor)
    bodiless = method == b"HEAD" or status < 200 or status in (204, 304)
    framing = NO_BODY if bodiless else UNTIL_CLOSE if framing is None else framing
    keep = _keeps(lines, minor) and not framing.until_close
    return ResponseHead(status, line, lines, framing, keep, _upgrade(lines))


def request_bytes(head: RequestHead, client: str, scheme: str, *, trusted: bool) -> bytes:
    """As the replica gets it. *trusted*: our own face spoke to the client and says so in ``X-Forwarded-*``; else what
    the client says of that is dropped, and *client* and *scheme* are what we know."""
    host = head.lines.values(b"host")[0]
    kept = head.lines.without(_TO_REPLICA if trusted else _TO_REPLICA_FROM_STRANGERS)
    data = b"%s %s HTTP/1.1\r\nhost: %s\r\n%s" % (head.method, head.target, host, kept)
    if not trusted:
        told = (client.encode(), scheme.encode(), host)
        data += b"x-forwarded-for: %s\r\nx-forwarded-proto: %s\r\nx-forwarded-host: %s\r\n" % told
    if head.upgrade:
        data += b"connection: upgrade\r\nupgrade: %s\r\n" % head.upgrade
    return data + b"\r\n"


def response_bytes(head: ResponseHead, *, keep_alive: bool) -> bytes:
    """As the client gets it."""
    data = b"HTTP/1.1%s\r\n%s" % (head.line[8:], head.lines.without(_TO_PUBLIC))
    if head.status == 101:
        return data + b"connection: upgrade\r\nupgrade: %s\r\n\r\n" % head.upgrade
    if head.status < 200:
        return data + b"\r\n"
    return data + (b"connection: keep-alive\r\n\r\n" if keep_alive else b"connection: close\r\n\r\n")


class Chunks:
    """Finds the end of a chunked body in what is passed on as it is (RFC 9112 §7.1). ``feed`` raises
    PeerError("http.framing")."""

    _SIZE = re.compile(rb"([0-9a-fA-F]{1,13})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]{0,256})?\r\n")
    LINE_MAX = 300

    def __init__(self) -> None:
        self._rest = b""
        """Of a line whose end has not come."""
        self._left = 0
        """Bytes of the chunk and its line end that are still to come."""
        self._trailer = self.done = False
        self._trailers = 0

    def feed(self, data: bytes) -> int:
        """How many bytes of *data* belong to the body; all of them until ``done``."""
        data, before, at = self._rest + data, len(self._rest), 0
        self._rest = b""
        while at < len(data) and not self.done:
            if self._left:
                at = self._skip(data, at)
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                if len(data) - at > self.LINE_MAX:
                    raise PeerError("http.framing", "a chunk's size in a line without end")
                self._rest = data[at:]
                return len(data) - before
            self._line(data[at : end + 2])
            at = end + 2
        return at - before

    def _skip(self, data: bytes, at: int) -> int:
        """The chunk, then exactly CR LF."""
        step = min(max(0, self._left - 2), len(data) - at)
        self._left -= step
        at += step
        while self._left in (1, 2) and at < len(data):
            if data[at] != (13 if self._left == 2 else 10):
                raise PeerError("http.framing", "a chunk that does not end where it said")
            self._left -= 1
            at += 1
        return at

    def _line(self, line: bytes) -> None:
        if self._trailer:
            self._trailers += len(line)
            if line == b"\r\n":
                self.done = True
            elif self._trailers > 4096 or _FIELDS.fullmatch(line) is None:
                raise PeerError("http.framing", "trailers that are none")
            return
        match = self._SIZE.fullmatch(line)
        if match is None:
            raise PeerError("http.framing", "a chunk without a size")
        size = int(match[1], 16)
        if size == 0:
            self._trailer = True
        else:
            self._left = size + 2


# -- parts -------------------------------------------------------------------------------------------
def _split(head: bytes, wanted: re.Pattern[bytes]) -> tuple[bytes, Lines]:
    if len(head) > HEAD_MAX or not head.endswith(b"\r\n\r\n"):
        raise PeerError("http.malformed", "a head that is too long or does not end")
    line, _, block = head[:-2].partition(b"\r\n")
    if _FIELDS.fullmatch(block) is None:
        raise PeerError("http.malformed", "header lines that are none of HTTP/1.1")
    if block.count(b"\n") > HEADERS_MAX:
        raise PeerError("http.malformed", f"more than {HEADERS_MAX} header lines")
    # the lower case is one byte ahead of the block, so a match begins where its line begins
    told = [
        (match[1], block[match.end(1) : match.end() - 2].strip(b" \t"), match.start(), match.end())
        for match in wanted.finditer(b"\n" + block.lower())
    ]
    words = [value for name, value, _, _ in told if name == b"connection"]
    return line, Lines(block, tuple(told), _tokens(words) if words else frozenset())


@lru_cache(maxsize=1024)
def _host(value: bytes) -> str:
    match = _HOST.fullmatch(value)
    host = normal_host(match[1].decode()) if match else ""
    if not host:
        raise PeerError("http.host", "a request names one host")
    return host


def _framing(lines: Lines, minor: bytes) -> Framing | None:
    """None where nothing is said. Two framings, or two lengths, are how requests are smuggled (RFC 9112 §6.3)."""
    lengths, codings = lines.values(b"content-length"), lines.values(b"transfer-encoding")
    if codings:
        if lengths or [coding.lower() for coding in codings] != [b"chunked"] or minor == b"0":
            raise PeerError("http.framing", "a transfer coding other than chunked alone")
        return CHUNKED
    if not lengths:
        return None
    if len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None or int(lengths[0]) > LENGTH_MAX:
        raise PeerError("http.framing", "not one content length")
    return Framing(int(lengths[0]))


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
