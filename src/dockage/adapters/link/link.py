"""IrohLink: the PeerLink port over QUIC connections dialled by key (iroh).

``serve`` owns every task: accepting, handlers, heartbeats. It must run for as long as the link is used, also in a
node that only calls others: a peer behind a NAT is reached over the connection that it dialled itself.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

import structlog
from iroh import iroh_ffi
from iroh.iroh_ffi import EndpointAddr, EndpointId, EndpointOptions, IrohError, RelayMap, RelayMode

from dockage.domain.errors import DockageError, PeerError, Unavailable
from dockage.domain.identity import NodeKey, short
from dockage.ports.peers import AcceptStream, Address, Stream
from dockage.wire.limits import LINK, LinkLimits
from dockage.wire.sources import Rates, source_of

from . import calls, fast, frees, steady
from .book import AddressBook, Line, Switchboard, reach
from .stream import IrohStream
from .tally import Tally

log = structlog.get_logger("dockage.link")

ALPN = b"dockage/1"
"""One protocol for everything: the first frame of a stream says what it is for (docs/spec/01-frames.md)."""

fast.apply()
calls.apply()
frees.apply()


class IrohLink:
    """Make one with ``IrohLink.create``; close it when done. Two links with one secret fight: lock the identity."""

    def __init__(self, endpoint: Any, limits: LinkLimits) -> None:
        self._endpoint, self._limits = endpoint, limits
        self._node, self._closed = NodeKey(endpoint.id().to_bytes()), False
        self._book = AddressBook(limits)
        self._lines = Switchboard(limits)
        self._tally = Tally()
        self._advertised: set[str] = set()
        self._dialling: WeakValueDictionary[NodeKey, asyncio.Lock] = WeakValueDictionary()
        self._tasks: asyncio.TaskGroup | None = None
        self._accept: AcceptStream | None = None
        self._handshakes = self._streams = 0
        self._sources = Rates(limits.source_rate, limits.source_burst, limits.sources)

    @classmethod
    async def create(
        cls,
        secret: bytes,
        bind: str = "127.0.0.1:0",
        relayed: bool = False,
        limits: LinkLimits = LINK,
        roams: bool = False,
    ) -> IrohLink:
        """*secret* is the 32-byte Ed25519 seed, *bind* an ``ip:port`` (port 0 = any). *relayed*: it may be told to use
        relays, and asks a home router to forward its port (UPnP, PCP, NAT-PMP: the transport's own, which has no other
        switch); else there are direct connections only. *roams*: connections follow the machine into another network,
        at a price that a machine that runs containers does not pay (steady.py). Raises Unavailable("link.bind")."""
        iroh_ffi.uniffi_set_event_loop(
            asyncio.get_running_loop()
        )  # callbacks come from the transport's threads
        # Without a preset the binding would announce this node at its makers' servers and use their relays.
        options = EndpointOptions(
            preset=iroh_ffi.preset_minimal(),
            alpns=[ALPN],
            # Empty at first: a relay that is added later is in use after 0.2 s, one that is there at the start after 3.
            relay_mode=RelayMode.custom(RelayMap.empty()) if relayed else RelayMode.disabled(),
            secret_key=secret,
            bind_addr=bind,
        )
        others = steady.subscriptions()
        try:
            endpoint = await iroh_ffi.Endpoint.bind(options)
            if not roams:
                await steady.unsubscribe(others)
            return cls(endpoint, limits)
        except IrohError as error:
            raise Unavailable(
                "link.bind",
                f"cannot open the peer link on {bind} ({_first_line(error)}): choose another node.bind (--bind)",
            ) from None

    # -- the port ------------------------------------------------------------------------------------
    @property
    def node(self) -> NodeKey:
        return self._node

    def address(self) -> Address:
        """The ones that more nodes can reach come first: a record has room for few."""
        own = self._endpoint.addr()
        direct = sorted(
            own.direct_addresses(), key=lambda text: (text not in self._advertised, reach(text), text)
        )
        return Address(own.relay_url() or "", tuple(direct))

    def learn(self, peer: NodeKey, address: Address) -> None:
        self._book.learn(peer, address)

    def current(self, peer: NodeKey) -> object | None:
        return self._lines.find(peer)

    async def open(self, peer: NodeKey, timeout: float = 10.0) -> Stream:
        try:
            async with asyncio.timeout(timeout):
                line = await self._line(peer)
                return line.stream(await line.connection.open_bi())
        except TimeoutError:
            raise _unreachable(peer, f"no answer within {timeout:g} s") from None
        except IrohError as error:
            raise _unreachable(peer, _first_line(error)) from None

    async def serve(self, accept: AcceptStream) -> None:
        """Runs until cancelled, or until ``close``. Raises Unavailable("link.lost"): the transport gives up for good
        when its socket fails it, and only another process gets its port back."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks, self._accept = tasks, accept
            try:
                for line in self._lines:
                    self._adopt(line)
                while (incoming := await self._endpoint.accept_next()) is not None:
                    tasks.create_task(self._welcome(incoming))
                if not self._closed:
                    raise Unavailable("link.lost", "the peer link gave up; the daemon must be started again")
            finally:
                self._tasks = self._accept = None

    async def close(self) -> None:
        self._closed = True
        for line in self._lines:
            line.close(b"closing")
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.close_sec):
                await self._endpoint.close()

    # -- what only this transport can tell -----------------------------------------------------------
    def seen(self, peer: NodeKey) -> str:
        """The ``ip:port`` that *peer* uses now, as we see it; "" if there is no direct path to it."""
        line = self._lines.find(peer)
        paths = line.connection.paths() if line else []
        direct = [path for path in paths if path.is_ip]
        direct.sort(key=lambda path: not path.is_selected)
        return direct[0].remote_addr if direct else ""

    async def advertise(self, address: str) -> None:
        """Add the ``ip:port`` that others see us at to our own address: what makes hole punching work."""
        try:
            await self._endpoint.add_external_addr(address)
            self._advertised.add(address)
        except IrohError as error:
            raise Unavailable(
                "link.address", f"{address} cannot be advertised: {_first_line(error)}"
            ) from None

    async def withdraw(self, address: str) -> None:
        self._advertised.discard(address)
        with suppress(IrohError):
            await self._endpoint.remove_external_addr(address)

    async def use_relay(self, url: str) -> None:
        try:
            await self._endpoint.insert_relay(iroh_ffi.RelayConfig(url=url))
        except IrohError as error:
            raise Unavailable(
                "link.relay", f"{url} cannot be used as a relay: {_first_line(error)}"
            ) from None

    async def leave_relay(self, url: str) -> None:
        """The transport itself leaves a dead relay only after some 50 s."""
        with suppress(IrohError):
            await self._endpoint.remove_relay(url)

    def relayed(self, url: str) -> tuple[int, int]:
        return self._tally.of(url, self._lines)

    # -- connections ---------------------------------------------------------------------------------
    async def _line(self, peer: NodeKey) -> Line:
        if line := self._lines.find(peer):
            return line
        lock = self._dialling.setdefault(peer, asyncio.Lock())
        async with lock:  # many calls to a new peer share one dial
            return self._lines.find(peer) or await self._dial(peer)

    async def _dial(self, peer: NodeKey) -> Line:
        address = self._book.find(peer)
        if address is None:
            raise _unreachable(peer, "no address of it is known")
        target = EndpointAddr(EndpointId.from_bytes(peer), address.relay or None, list(address.direct))
        self._lines.make_room()
        return self._keep(await self._endpoint.connect(target, ALPN))

    async def _welcome(self, incoming: Any) -> None:
        try:
            if not await self._admits(incoming):
                return
            self._handshakes += 1
            try:
                async with asyncio.timeout(self._limits.handshake_sec):
                    connection = await (await incoming.accept()).connect()
            finally:
                self._handshakes -= 1
            line = self._keep(connection)
            # Where it came from is a way back, also through the NAT that it came through, for as long as that lasts.
            self._book.learn(
                line.peer, Address("", tuple(p.remote_addr for p in connection.paths() if p.is_ip))
            )
        except (IrohError, TimeoutError) as error:
            log.debug("link.handshake-failed", why=_first_line(error))

    async def _admits(self, incoming: Any) -> bool:
        """Before the handshake, where a refusal costs us least."""
        proven = await incoming.remote_addr_validated()
        keep = 0 if proven else self._limits.source_burst // 2
        if not self._sources.spend(await _source(incoming), asyncio.get_running_loop().time(), keep):
            await (incoming.ignore() if proven else incoming.retry())
            return False
        if self._handshakes >= self._limits.handshakes or not self._lines.make_room():
            await incoming.refuse()
            return False
        if self._handshakes >= self._limits.handshakes // 4 and not proven:
            await incoming.retry()
            return False
        return True

    def _keep(self, connection: Any) -> Line:
        connection.set_max_concurrent_bi_streams(self._limits.streams_per_connection)
        connection.set_max_concurrent_uni_streams(0)
        line = Line(NodeKey(connection.remote_id().to_bytes()), connection)
        self._lines.add(line)
        log.debug("link.connected", peer=short(line.peer))
        self._adopt(line)
        return line

    def _adopt(self, line: Line) -> None:
        if self._tasks is not None:
            self._tasks.create_task(self._attend(line))

    async def _attend(self, line: Line) -> None:
        """Accept the peer's streams and feel its pulse until the connection ends."""
        try:
            async with asyncio.TaskGroup() as tasks:
                pulse = tasks.create_task(self._feel_pulse(line))
                await self._take_streams(line)
                pulse.cancel()
        finally:
            line.close(b"closing")
            self._tally.look(line)
            self._lines.remove(line)
            log.debug("link.disconnected", peer=short(line.peer))

    async def _feel_pulse(self, line: Line) -> None:
        """A probe must be acknowledged by the peer's *transport*: a busy interpreter there costs no connection,
        a dead process or a cut path does."""
        while line.is_live:
            await asyncio.sleep(self._limits.heartbeat_sec)
            if not await self._answers(line):
                log.debug("link.silent", peer=short(line.peer))
                line.close(b"silent")

    async def _answers(self, line: Line) -> bool:
        heard = line.connection.stats().udp_rx_datagrams
        for _ in range(3):  # datagrams get lost: one lost probe must not cost a connection
            try:
                line.connection.send_datagram(b"\0")
            except IrohError:
                return not line.is_live  # already ended: nothing to close
            for _ in range(10):
                await asyncio.sleep(self._limits.silence_sec / 30)
                if line.connection.stats().udp_rx_datagrams > heard:
                    return True
        return False

    # -- streams -------------------------------------------------------------------------------------
    async def _take_streams(self, line: Line) -> None:
        try:
            while self._tasks is not None:
                stream = line.stream(await line.connection.accept_bi())
                if self._streams >= self._limits.streams:
                    stream.abort()
                else:
                    self._tasks.create_task(self._handle(line.peer, stream))
        except IrohError as error:
            log.debug("link.ended", peer=short(line.peer), why=_first_line(error))

    async def _handle(self, peer: NodeKey, stream: IrohStream) -> None:
        if self._accept is None:
            return stream.abort()
        self._streams += 1
        try:
            await self._accept(peer, stream)
        except PeerError as error:
            log.debug("link.breach", peer=short(peer), code=error.code, why=error.message)
            self._hang_up(peer)
        except DockageError as error:
            log.debug("link.call-failed", peer=short(peer), code=error.code, why=error.message)
        except Exception:
            log.exception(
                "link.handler-crashed", peer=short(peer)
            )  # a bug: it ends this call, not the daemon
        finally:
            self._streams -= 1
            stream.abort()  # after finish() this loses nothing; without it, half an answer must look broken

    def _hang_up(self, peer: NodeKey) -> None:
        """Whoever breaks the protocol loses its connections and all that runs over them; it may dial again."""
        for line in self._lines.all(peer):
            line.close(b"breach")
            self._lines.remove(line)


async def _source(incoming: Any) -> str:
    """Through a relay everybody has the relay's address, but a key that the relay has proven."""
    address = await incoming.remote_addr()
    if address.is_relay():
        return f"{address.url} {address.endpoint_id}"
    return source_of(address.addr.rpartition(":")[0])


def _unreachable(peer: NodeKey, why: str) -> Unavailable:
    return Unavailable("peer.unreachable", f"peer {short(peer)} cannot be reached: {why}")


def _first_line(error: BaseException) -> str:
    """The binding's messages end in a backtrace of its own sources: people need the cause, on one line."""
    text = error.message() if isinstance(error, IrohError) else type(error).__name__
    return " / ".join(line.split(" (/")[0].strip() for line in text.splitlines()[:8] if line.strip())[:300]
