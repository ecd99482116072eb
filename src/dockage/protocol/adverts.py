"""What a node says of itself on the local network (mDNS, RFC 6762 and 6763). Spec: docs/spec/10-bootstrap.md.

Anybody on the network can say anything: an advert is a hint where to dial, and the handshake proves the key.
Counterpart: ``adapters/lan``, which moves the records.
"""

from __future__ import annotations

from base64 import b32decode, b32encode
from collections.abc import Mapping
from ipaddress import ip_address
from typing import NamedTuple

from dockage.domain.errors import PeerError
from dockage.domain.identity import NodeKey

SERVICE = "_dockage._udp.local."
VERSION = b"1"
ADDRESSES_MAX = 8
TEXT_MAX = 64
"""Bytes of any one value."""


class Advert(NamedTuple):
    key: NodeKey
    network: str
    """Name of the market it takes part in."""
    direct: tuple[str, ...]
    """``ip:port`` of its peer link."""
    market: bool = False
    """It stores and answers for the market: a place to enter by."""
    pairing: str = ""
    """The number of a code that somebody is to type on another machine now."""


def instance(key: NodeKey) -> str:
    """The service's instance name: a DNS label takes 63 characters, a key in hex is 64."""
    return f"{b32encode(key).decode().rstrip('=').lower()}.{SERVICE}"


def encode(advert: Advert) -> dict[bytes, bytes]:
    """The TXT record."""
    said = {b"v": VERSION, b"net": advert.network.encode()}
    if advert.market:
        said[b"market"] = b"1"
    if advert.pairing:
        said[b"pair"] = advert.pairing.encode()
    return said | {b"%d" % n: a.encode() for n, a in enumerate(advert.direct[:ADDRESSES_MAX])}


def decode(name: str, said: Mapping[bytes, bytes | None]) -> Advert:
    """Raises PeerError("advert.malformed")."""
    if said.get(b"v") != VERSION:
        raise PeerError("advert.malformed", "an advert of another version")
    listed = [_text(said, b"%d" % n) for n in range(ADDRESSES_MAX)]
    direct = tuple(x for x in listed if x and is_dialable(x))
    pairing = _text(said, b"pair")
    if pairing and not (pairing.isascii() and pairing.isdecimal()):
        raise PeerError("advert.malformed", "the number of a code has digits only")
    return Advert(_key(name), _text(said, b"net"), direct, said.get(b"market") == b"1", pairing)


def _key(name: str) -> NodeKey:
    label = name.removesuffix("." + SERVICE)
    try:
        key = b32decode(label.upper() + "=" * (-len(label) % 8))
    except ValueError:
        key = b""
    if len(key) != 32:
        raise PeerError("advert.malformed", "the instance name is no node's key")
    return NodeKey(key)


def _text(said: Mapping[bytes, bytes | None], field: bytes) -> str:
    value = said.get(field) or b""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if len(value) > TEXT_MAX or not text.isprintable():
        raise PeerError("advert.malformed", f"a value of {len(value)} bytes, or not of printable characters")
    return text


def is_dialable(text: str) -> bool:
    """``ip:port`` of one machine: no name, no group, not "any"."""
    host, _, port = text.rpartition(":")
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return (
        port.isascii()
        and port.isdecimal()
        and 0 < int(port) < 1 << 16
        and (host.startswith("["), host.endswith("]")) == ((address.version == 6),) * 2
        and not (address.is_multicast or address.is_unspecified)
        and (address.is_loopback or not address.is_reserved)
    )
