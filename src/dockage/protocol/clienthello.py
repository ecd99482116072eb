"""The server name that a TLS client asks for, out of its first bytes (RFC 8446 §4.1.2, RFC 6066 §3), and nothing else.

A gateway that passes TLS on reads no more than this. The bytes are a stranger's: everything is bounded, and what is
not plainly right has no name. With ECH the outer name is read, which is all that a client shows.
"""

from __future__ import annotations

from dockage.domain.deployment import normal_host

HELLO_MAX = 16 << 10
"""Bytes of a hello in all its records. Post-quantum key shares make 1.5 to 2 kB usual."""
RECORD_MAX = 16 << 10
_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 22, 1, 0, 0


class NoHello(ValueError):
    """Not a ClientHello with one usable server name."""


def server_name(data: bytes) -> str | None:
    """The normalised host that *data*, the connection's first bytes, asks for; None while there is not enough of it.
    Raises NoHello."""
    hello = _hello(data)
    if hello is None:
        return None
    try:
        return _name(_Reader(hello))
    except IndexError:
        raise NoHello("a hello whose lengths do not fit") from None


def _hello(data: bytes) -> bytes | None:
    """The handshake message's body, gathered from its records."""
    message, at = b"", 0
    while True:
        if len(data) - at < 5:
            if at == 0 and data[:1] not in (b"", b"\x16"):
                raise NoHello("not TLS")
            return None
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        if data[at] != _HANDSHAKE or data[at + 1] != 3 or not 0 < size <= RECORD_MAX:
            raise NoHello("not a TLS handshake")
        message += data[at + 5 : at + 5 + size]
        if message and message[0] != _CLIENT_HELLO:
            raise NoHello("not a ClientHello")
        length = int.from_bytes(message[1:4], "big")
        if length > HELLO_MAX:
            raise NoHello("a hello without measure")
        if len(message) >= 4 and len(message) - 4 >= length:
            return message[4 : 4 + length]
        if len(data) - at - 5 < size:
            return None
        at += 5 + size
        if at > HELLO_MAX + 5 * 64:
            raise NoHello("a hello in too many records")


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        if len(piece) < size:
            raise IndexError
        self._at += size
        return piece

    def vector(self, head: int) -> _Reader:
        """What follows its own length of *head* bytes."""
        return _Reader(self.take(int.from_bytes(self.take(head), "big")))

    @property
    def rest(self) -> bool:
        return self._at < len(self._data)

    def all(self) -> bytes:
        return self._data


def _name(hello: _Reader) -> str:
    hello.take(2 + 32)  # legacy version, random
    hello.vector(1)  # session id
    hello.vector(2)  # cipher suites
    hello.vector(1)  # compression methods
    if not hello.rest:
        raise NoHello("a client that names no server")
    extensions, found = hello.vector(2), ""
    while extensions.rest:
        kind, body = int.from_bytes(extensions.take(2), "big"), extensions.vector(2)
        if kind == _SERVER_NAME:
            if found:
                raise NoHello("two server names")
            found = _host(body)
    if not found:
        raise NoHello("a client that names no server")
    return found


def _host(body: _Reader) -> str:
    """The one host name of the list: RFC 6066 allows no second."""
    names = body.vector(2)
    kind, name = names.take(1)[0], names.vector(2).all()
    if kind != _HOST_NAME or names.rest or body.rest:
        raise NoHello("not one host name")
    host = normal_host(name.decode("latin-1"))
    if not host:
        raise NoHello("a server name that is no host name")
    return host
