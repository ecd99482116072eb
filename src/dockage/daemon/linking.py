"""``dockage link``: two machines of one user come to know each other's keys by a code. Spec: docs/spec/11-link.md.

One code at a time, for ten minutes and one try: whoever begins to use it either knows it or has ended it. No server
takes part; the connection is the peer link's own, found on the local network or by the address in the long code.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

import structlog

from dockage.domain.errors import DockageError, PeerError, Unavailable, UsageError
from dockage.domain.identity import NodeKey, short
from dockage.ports.machine import Clock
from dockage.ports.peers import Address, NewPake, PeerLink, Stream
from dockage.protocol import pairing as said
from dockage.protocol import streams
from dockage.protocol.adverts import ADDRESSES_MAX
from dockage.protocol.pairing import Card, Code
from dockage.wire.frames import read_frame, write_frame

from .machines import Machine, Machines
from .presence import Presence

log = structlog.get_logger("dockage.link")

LIFE = 600.0
"""Seconds that a code is good for."""
EXCHANGE = 20.0
LOOK = 10.0
"""For the machine with the code to be heard on the local network."""
DIAL = 10.0
PAKE_MAX = 64


@dataclass(slots=True)
class Shown:
    """A code of ours that is, or was, to be typed elsewhere."""

    password: str
    until: float
    """The loop's time."""
    state: str = "waiting"
    """``waiting``, ``trying``, ``linked`` or ``closed``."""
    code: str = ""
    message: str = ""
    """Why it is closed."""
    machine: Machine | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def number(self) -> str:
        return Code(self.password).number

    def close(self, code: str, message: str) -> None:
        if not self.over.is_set():
            self.state, self.code, self.message = "closed", code, message
            self.over.set()

    def link(self, machine: Machine) -> None:
        self.state, self.machine = "linked", machine
        self.over.set()


class Linking:
    def __init__(
        self,
        link: PeerLink,
        clock: Clock,
        machines: Machines,
        presence: Presence,
        new_pake: NewPake,
        rand: Random,
        name: str,
    ) -> None:
        self._link, self._clock, self._machines, self._presence = link, clock, machines, presence
        self._new_pake, self._rand, self._name = new_pake, rand, name
        self._wanted = asyncio.Event()
        self.shown: Shown | None = None

    # -- the machine that shows the code ---------------------------------------------------------------
    def offer(self) -> Shown:
        """A new code; an older one of ours ends."""
        self.cancel()
        password = said.new_code(self._rand.randrange(1000), self._rand.randbytes(said.SECRET_BYTES))
        self.shown = Shown(password, asyncio.get_running_loop().time() + LIFE)
        self._wanted.set()
        return self.shown

    @property
    def on_lan(self) -> bool:
        """Whether the short code can be found by its number."""
        return self._presence.is_possible

    def long_form(self, shown: Shown) -> str:
        address = self._link.address()
        return said.long_form(shown.password, self._link.node, address.relay, address.direct)

    def cancel(self) -> None:
        if self.shown is not None:
            self.shown.close("link.cancelled", "the code was taken back")

    async def run(self) -> None:
        """Says on the local network what is shown, and ends what is too old."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self.shown is not None and not self.shown.over.is_set():
                await self._hold(self.shown)

    async def _hold(self, shown: Shown) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(shown.until):
                if self._presence.is_possible:
                    await self._on_the_network(shown)
                await shown.over.wait()
        shown.close("link.late", "nobody typed the code within ten minutes: run `dockage link` again")

    async def _on_the_network(self, shown: Shown) -> None:
        try:
            async with self._presence.showing(shown.number):
                await shown.over.wait()
        except Unavailable as error:
            log.warning("link.not-announced", code=error.code, why=error.message)

    async def serve(self, peer: NodeKey, header: streams.Pairing, stream: Stream) -> None:
        shown = self.shown
        if shown is None or shown.state != "waiting" or header.number != shown.number:
            raise Unavailable("link.no-code", "no code of that number is shown here now")
        shown.state = "trying"
        try:
            async with asyncio.timeout(EXCHANGE):
                machine = await self._as_host(shown.password, peer, stream)
            await self._machines.add(machine)
            shown.link(machine)
        except TimeoutError:
            raise Unavailable("link.slow", f"{short(peer)} stopped in the middle of a pairing") from None
        finally:
            shown.close(
                "link.tried",
                f"somebody ({short(peer)}) tried the code and did not know it. Nobody was let in, and the code is "
                "used up: run `dockage link` again",
            )

    async def _as_host(self, password: str, peer: NodeKey, stream: Stream) -> Machine:
        pake = self._new_pake(password, said.parties(self._link.node, peer), first=True)
        theirs = await read_frame(stream, PAKE_MAX)
        await write_frame(stream, pake.message)
        secret = pake.finish(theirs)
        # The guest shows first: until it has, nothing of ours tells whether a guess was right.
        card = said.open_shown(await read_frame(stream, said.FRAME_MAX), secret, b"guest")
        answer = said.wrong() if card is None else said.show(self._card(), secret, b"host")
        await write_frame(stream, answer)
        await stream.finish()
        if card is None:
            raise Unavailable("link.wrong-code", f"{short(peer)} does not know the code")
        return self._machine(peer, card)

    # -- the machine where it is typed -----------------------------------------------------------------
    async def accept(self, text: str) -> Machine:
        """Raises UsageError("link.*" | "lan.missing") or Unavailable."""
        code = said.read_code(text)
        key = await self._find(code)
        if key == self._link.node:
            raise UsageError("link.self", "this is the machine that shows the code: type it on the other one")
        stream = await self._link.open(key, DIAL)
        try:
            async with asyncio.timeout(EXCHANGE):
                machine = await self._as_guest(code, key, stream)
        except (TimeoutError, PeerError, Unavailable) as error:
            why = error.message if isinstance(error, DockageError) else "it stopped answering"
            raise Unavailable(
                "link.broken",
                f"the other machine shows no such code now, or hung up ({why}): run `dockage link` again there",
            ) from None
        finally:
            stream.abort()
        await self._machines.add(machine)
        return machine

    async def _find(self, code: Code) -> NodeKey:
        if code.key is not None:
            self._link.learn(code.key, Address(code.relay, code.direct))
            return code.key
        heard = await self._presence.look(lambda advert: advert.pairing == code.number, LOOK)
        if len(heard) != 1:
            many = "more than one machine shows" if heard else "no machine shows"
            raise UsageError(
                "link.not-found",
                f"{many} a code {code.number} on this network: is it the same network, and is the code less than ten "
                "minutes old? The long code (the one in the picture) works elsewhere too",
            )
        self._link.learn(heard[0].key, Address("", heard[0].direct))
        return heard[0].key

    async def _as_guest(self, code: Code, host: NodeKey, stream: Stream) -> Machine:
        pake = self._new_pake(code.password, said.parties(host, self._link.node), first=False)
        await write_frame(stream, streams.encode_header(streams.Pairing(code.number)))
        await write_frame(stream, pake.message)
        secret = pake.finish(await read_frame(stream, PAKE_MAX))
        await write_frame(stream, said.show(self._card(), secret, b"guest"))
        await stream.finish()
        card = said.open_shown(await read_frame(stream, said.FRAME_MAX), secret, b"host")
        if card is None:
            raise UsageError(
                "link.wrong-code",
                "that is not the code which the other machine shows. It allows one try: run `dockage link` again there",
            )
        return self._machine(host, card)

    # -- both ------------------------------------------------------------------------------------------
    def _card(self) -> Card:
        address = self._link.address()
        return Card(self._name, address.relay, address.direct[:ADDRESSES_MAX])

    def _machine(self, key: NodeKey, card: Card) -> Machine:
        return Machine(key, card.name, card.relay, card.direct, self._clock.now())
