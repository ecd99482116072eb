"""The grammar of HTTP/1.1 that all who read it here share: strict and bounded. RFC 9110 and 9112.

The gateway forwards with it, and the Docker front and the provider's gate speak the Engine API with it. What two
parsers could read differently is refused.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dockage.domain.errors import PeerError

HEADERS_MAX = 128
LENGTH_MAX = 1 << 50
FIELDS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)*")
"""Header lines, each with its end."""
REQUEST = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!-~]+) HTTP/1\.([01])\r\n")
"""(method, target, minor version)"""
STATUS = re.compile(rb"HTTP/1\.([01])( ([1-9][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?)\r\n")
"""(minor version, the rest, status)"""
_LENGTH = re.compile(rb"[0-9]{1,16}")


class Framing(NamedTuple):
    """How a body ends."""

    length: int = 0
    """-1 = not by a length."""
    chunked: bool = False

    @property
    def until_close(self) -> bool:
        return self.length < 0 and not self.chunked


NO_BODY, UNTIL_CLOSE, CHUNKED = Framing(), Framing(-1), Framing(-1, chunked=True)


def framing_of(lengths: list[bytes], codings: list[bytes], minor: bytes) -> Framing | None:
    """From the values of ``Content-Length`` and ``Transfer-Encoding``; None where nothing is said. Two framings, or two
    lengths, are how requests are smuggled (RFC 9112 §6.3). Raises PeerError("http.framing")."""
    if codings:
        if lengths or [coding.lower() for coding in codings] != [b"chunked"] or minor == b"0":
            raise PeerError("http.framing", "a transfer coding other than chunked alone")
        return CHUNKED
    if not lengths:
        return None
    if len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None or int(lengths[0]) > LENGTH_MAX:
        raise PeerError("http.framing", "not one content length")
    return Framing(int(lengths[0]))


class Chunks:
    """Finds the end of a chunked body in what is passed on as it is (RFC 9112 §7.1). ``feed`` raises
    PeerError("http.framing")."""

    _SIZE = re.compile(rb"([0-9a-fA-F]{1,13})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]{0,256})?\r\n")
    LINE_MAX = 300

    def __init__(self, content: list[bytes] | None = None) -> None:
        """*content* gets the pieces of what is in the chunks."""
        self.content = content
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
        if self.content is not None and step:
            self.content.append(data[at : at + step])
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
            elif self._trailers > 4096 or FIELDS.fullmatch(line) is None:
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
