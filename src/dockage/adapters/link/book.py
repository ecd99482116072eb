"""Who can be reached where, and over which live connection: bounded memory, the longest unused goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any
from weakref import WeakSet

from dockage.domain.identity import NodeKey
from dockage.ports.peers import Address
from dockage.wire.limits import LinkLimits

from .stream import IrohStream


class AddressBook:
    """Merges rather than replaces: a false address that somebody told us cannot displace a good one at once."""

    def __init__(self, limits: LinkLimits) -> None:
        self._limits = limits
        self._known: OrderedDict[NodeKey, Address] = OrderedDict()

    def learn(self, peer: NodeKey, address: Address) -> None:
        old = self._known.pop(peer, Address("", ()))
        if old.relay == address.relay and old.direct[: len(address.direct)] == address.direct:
            self._known[peer] = old  # as each question to a market node says again
            return
        direct = dict.fromkeys(filter(is_socket_address, (*address.direct[:64], *old.direct)))
        relay = address.relay if is_relay_url(address.relay) else old.relay
        self._known[peer] = Address(relay, tuple(direct)[: self._limits.addresses_per_peer])
        while len(self._known) > self._limits.peers_known:
            self._known.popitem(last=False)

    def find(self, peer: NodeKey) -> Address | None:
        if peer not in self._known:
            return None
        self._known.move_to_end(peer)
        return self._known[peer]


def is_socket_address(text: str) -> bool:
    """``ip:port``, IPv6 in brackets; never a name, so that no peer can make us ask a resolver."""
    host, _, port = text.rpartition(":")
    try:
        ip_address(host.removeprefix("[").removesuffix("]"))
        return host.startswith("[") == (":" in host) and 0 < int(port) < 1 << 16
    except ValueError:
        return False


def reach(text: str) -> int:
    """0 for an ``ip:port`` that everybody could reach, 1 for one of a local network, 2 for the machine's own."""
    address = ip_address(text.rpartition(":")[0].strip("[]").partition("%")[0])
    return 2 if address.is_loopback or address.is_link_local else 0 if address.is_global else 1


def is_relay_url(text: str) -> bool:
    return text.startswith(("http://", "https://")) and len(text) <= 255 and text.isprintable()


class Line:
    """One live connection and the streams on it."""

    __slots__ = ("connection", "paths", "peer", "streams")

    def __init__(self, peer: NodeKey, connection: Any) -> None:
        self.peer, self.connection = peer, connection
        self.streams: WeakSet[IrohStream] = WeakSet()
        """Weak: a stream that everybody forgot does not keep a line busy."""
        self.paths: dict[int, tuple[int, int]] = {}
        """What was counted of each relayed path already (``tally.py``)."""

    @property
    def is_live(self) -> bool:
        return self.connection.close_reason() is None

    def stream(self, raw: Any) -> IrohStream:
        stream = IrohStream(raw)
        self.streams.add(stream)
        return stream

    def close(self, why: bytes) -> None:
        if self.is_live:
            self.connection.close(0, why)


class Switchboard:
    """All lines, oldest use first. A peer's newest line carries new streams; older ones run out by themselves."""

    def __init__(self, limits: LinkLimits) -> None:
        self._limits = limits
        self._lines: OrderedDict[int, Line] = OrderedDict()
        self._of: dict[NodeKey, list[Line]] = {}

    def __iter__(self) -> Iterator[Line]:
        return iter(tuple(self._lines.values()))

    def find(self, peer: NodeKey) -> Line | None:
        while lines := self._of.get(peer):
            if lines[-1].is_live:
                self._lines.move_to_end(id(lines[-1]))
                return lines[-1]
            self.remove(lines[-1])
        return None

    def all(self, peer: NodeKey) -> tuple[Line, ...]:
        return tuple(self._of.get(peer, ()))

    def add(self, line: Line) -> None:
        self._lines[id(line)] = line
        lines = self._of.setdefault(line.peer, [])
        lines.append(line)
        if len(lines) > self._limits.connections_per_peer:
            lines[0].close(b"too many connections")
            self.remove(lines[0])

    def remove(self, line: Line) -> None:
        if self._lines.pop(id(line), None) is None:
            return
        lines = self._of[line.peer]
        lines.remove(line)
        if not lines:
            del self._of[line.peer]

    def make_room(self) -> bool:
        """False if every line is busy and there are as many as there may be."""
        if len(self._lines) < self._limits.connections:
            return True
        for line in self:
            if not line.streams:
                line.close(b"idle")
                self.remove(line)
                return True
        return False
