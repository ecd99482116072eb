"""Standing in for our user's other machines: mandates are taken and kept, and what the deputy's mind decides is done.

Counterpart: ``deputies.py`` on the tenant's side. The one rule: the state of the mind is looked at, and the controller
made to agree with it, so that a missed moment is made up for; a yes to a tenant leaves only after that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, cast

import msgspec
import structlog
from msgspec.structs import replace

from dockage.domain.errors import PeerError, Unavailable, UsageError
from dockage.domain.identity import LeaseId, NodeKey, short
from dockage.domain.reason import Reason
from dockage.domain.units import SECOND, Duration, Instant, Msat, Sat, after
from dockage.node import controller_words as say
from dockage.node import deputy as mind
from dockage.node.deputy import Charge, Deputy, Key
from dockage.node.kept import Controller, Goal, Patience
from dockage.node.tenant import Tenant
from dockage.ports.machine import Clock, Journal, Keys, Row
from dockage.ports.peers import Stream
from dockage.ports.renting import LeftImages
from dockage.protocol import mandates, streams
from dockage.protocol.docker.recipe import Recipe, decode
from dockage.protocol.mandates import AskImages, AskTerm, Give, Held, Lacks, Refused, Said, Taken
from dockage.wire.frames import read_frame, write_frame

from .driver import Driver
from .keeping import Keeping
from .keeping_hands import digest
from .machines import Machines
from .peers import Opener
from .perform import reason_of
from .rows import kept
from .tasks import Jobs, every
from .telling import Stead
from .wishes import goal_of, recipe_wishes

log = structlog.get_logger("dockage.deputising")

KIND = "deputy.charge"
TICK_SEC = 1.0
TALK = 10.0
"""Seconds for one question and its answer."""
END = 8.0
"""The same at a provider, whose lease of the tenant is ended."""
TRIES = 5
FENCE_SEC = Patience().fence / SECOND
TIDY_SEC = 600.0
STRANGER = Reason(
    "deputy.stranger", "this machine is a deputy for linked machines only: `dockage link` first"
)
HOLDS_DATA = Reason(
    "deployment.data",
    "it has named volumes, which stay at your own leases: dockage.data=expendable says that a deputy may begin with "
    "empty ones",
)
UNKNOWN = Reason("mandate.unknown", "this machine has no mandate for that deployment")


class Steady:
    """Runs on from where the clock was at the start: a step of the clock ends nobody's term."""

    def __init__(self, clock: Clock) -> None:
        self._from, self._begun = clock.now(), asyncio.get_running_loop().time()

    def now(self) -> Instant:
        passed = asyncio.get_running_loop().time() - self._begun
        return after(self._from, Duration(int(passed * 1_000_000_000)))


class Deputising:
    def __init__(
        self,
        keys: Keys,
        clock: Clock,
        journal: Journal,
        rows: Sequence[Row],
        machines: Machines,
        keeping: Keeping,
        tenant: Driver[Tenant],
        open_stream: Opener,
        jobs: Jobs,
        allowance: Sat,
    ) -> None:
        self._keys, self._machines, self._keeping, self._tenant = keys, machines, keeping, tenant
        self._open, self._jobs = open_stream, jobs
        self._clock = Steady(clock)
        stored = kept(rows, KIND, Charge)
        state = mind.restore(keys.node, allowance, stored, self._clock.now())
        step = cast("Callable[[Deputy, Any, Instant], Any]", mind.step)
        self.driver = Driver(state, step, changed, journal, lambda _: None, self._clock)
        self.lacks: Callable[[Iterable[str]], Awaitable[Sequence[str]]] = _nothing
        """Images (by id) that our own user does not have."""
        self.left: LeftImages | None = None
        """What linked machines left here."""
        self.tidied = 0.0
        self._ended: dict[Key, tuple[int, float]] = {}
        """Epoch of the newest term at whose beginning the tenant's leases were ended, and when that was."""
        self._over = set[LeaseId]()
        """Those of which their providers have said so."""
        self._lock = asyncio.Lock()

    @property
    def state(self) -> Deputy:
        return self.driver.newest

    def stead(self, name: str) -> Stead | None:
        """In whose place we publish *name*, as our own controller calls it."""
        charge = next((x for x in self.state.charges.values() if x.name == name), None)
        if charge is None or not charge.mandate.letter:
            return None
        mandate = charge.mandate
        gateways = frozenset(x.provider for x in mandate.leases)
        return Stead(mandate.tenant, mandate.name, mandate.letter, gateways)

    # -- from the tenant -------------------------------------------------------------------------------
    async def serve(self, peer: NodeKey, _: streams.Deputy, stream: Stream) -> None:
        try:
            async with asyncio.timeout(TALK):
                answer = await self._hear(peer, stream)
                await write_frame(stream, mandates.encode_said(answer))
                await stream.finish()
        except TimeoutError:
            raise Unavailable("peer.slow", f"{short(peer)} takes long to ask its deputy") from None

    async def _hear(self, peer: NodeKey, stream: Stream) -> mandates.Answer:
        if peer not in self._machines:
            return _refused(STRANGER)  # before a megabyte of its words is taken in
        return await self._answer(
            peer, mandates.decode_request(await read_frame(stream, mandates.REQUEST_MAX))
        )

    async def _answer(self, peer: NodeKey, request: mandates.Request) -> mandates.Answer:
        match request:
            case Give(mandate=blob):
                return await self._take(peer, blob)
            case AskImages(images=digests):
                missing = await self._missing([f"sha256:{x.hex()}" for x in digests])
                return Lacks(tuple(bytes.fromhex(x.removeprefix("sha256:")) for x in missing))
            case AskTerm(name=name):
                if (peer, name) not in self.state.charges:
                    return _refused(UNKNOWN)
                await self.driver.tell(cast("Any", mind.TermAsked(peer, name, request.epoch, request.serves)))
                await self._agree()
                return self._said(peer, request)

    async def serve_image(self, peer: NodeKey, _: streams.DeputyImage, stream: Stream) -> None:
        if peer not in self._machines or self.left is None:
            raise PeerError(STRANGER.code, STRANGER.text)  # before a layer is taken in
        await self.left.receive(stream)

    async def _take(self, peer: NodeKey, blob: bytes) -> mandates.Answer:
        me, now = self._keys.node, self._clock.now()
        mandate, recipe = mandates.open_mandate(blob, peer, me, now, self._keys.verify)
        why = mind.refusal(self.state, mandate) or (await self._unfit(recipe) if recipe else None)
        if why:
            return _refused(why)
        spent, holds_data = self._spent(mind.own_name(mandate)), bool(recipe and recipe.volumes)
        await self.driver.tell(cast("Any", mind.Mandated(mandate, spent, holds_data)))
        log.info("mandate.taken", tenant=short(peer), deployment=mandate.name, version=mandate.version)
        await self._agree()
        return Taken(mandate.version)

    async def _unfit(self, recipe: Recipe) -> Reason | None:
        """Why it could not be run here."""
        try:
            wishes, missing = recipe_wishes(recipe), await self._missing(recipe.images)
        except (UsageError, Unavailable) as error:
            return reason_of(error)
        if recipe.volumes and wishes.data != "expendable":
            return HOLDS_DATA
        if missing:
            names = ", ".join(recipe.images[x] for x in missing)[:300]
            return Reason("image.unknown", f"the deputy lacks {names}, which was to be left there before")
        return None

    async def _missing(self, images: Iterable[str]) -> Sequence[str]:
        missing = await self.lacks(images)
        return self.left.lacks(missing) if self.left is not None else missing

    def _said(self, peer: NodeKey, asked: AskTerm) -> Said:
        charge = self.state.charges[peer, asked.name]
        witness = charge.witness
        yes = witness.holder == peer and witness.epoch == asked.epoch and self._has_left(charge)
        return Said(witness.epoch, yes, charge.runs)

    # -- what follows ----------------------------------------------------------------------------------
    async def run(self) -> None:
        await self._keeping.attached.wait()
        await every(TICK_SEC, self._tick, "deputy")

    async def _tick(self) -> None:
        await self._tidy()
        if not self.state.charges and not self._charged():
            return
        for charge in self.state.charges.values():
            if (spent := self._spent(charge.name)) != charge.before + charge.spent:
                await self.driver.tell(cast("Any", mind.SpentSeen(charge.key, spent)))
        await self.driver.tell(cast("Any", mind.Ticked()))
        await self._agree()

    async def _tidy(self) -> None:
        """What no mandate names is not kept for its own sake."""
        now = asyncio.get_running_loop().time()
        if self.left is None or now - self.tidied < TIDY_SEC:
            return
        self.tidied = now
        recipes = [x.mandate.recipe for x in self.state.charges.values() if not x.mandate.is_withdrawn]
        await self.left.retain({image for recipe in recipes for image in decode(recipe).images})

    def _spent(self, name: str) -> Msat:
        return Msat(sum(x.due for x in self._tenant.state.leases.values() if x.deployment == name))

    def _charged(self) -> set[str]:
        return {name for name, of in self._controller.deployments.items() if of.charge}

    @property
    def _controller(self) -> Controller:
        return self._keeping.state

    async def _agree(self) -> None:
        """The controller keeps what is ours to keep, lets alone what it must, and ends the rest."""
        if not self._keeping.attached.is_set():
            return  # nothing is looked at yet, and so nothing done
        async with self._lock:
            charges = {x.name: x for x in self.state.charges.values()}
            for name in self._charged() - {name for name, x in charges.items() if x.runs}:
                await self._keeping.tell(say.Unwanted(name))
            for charge in charges.values():
                await self._agree_on(charge)

    async def _agree_on(self, charge: Charge) -> None:
        name = charge.name
        if charge.acts:
            recipe = decode(charge.mandate.recipe)
            self._keeping.hands.recipes[name] = recipe
            self._end_theirs(charge)
            goal, of = _goal(recipe, charge, self._clock.now()), self._controller.deployments.get(name)
            held = name in self._controller.terms
            if charge.holds_data and not held and not self._is_only_writer(charge):
                return
            if of is None or not held or of.goal != goal:
                await self._keeping.tell(say.Charged(name, goal, charge.witness.epoch))
        elif name in self._controller.terms:
            await self._keeping.tell(say.TermLost(name))

    def _end_theirs(self, charge: Charge) -> None:
        """What the tenant holds of it is ended, as far as we reach it: nobody pays for it any more."""
        if self._ended.get(charge.key, (0, 0.0))[0] == charge.witness.epoch:
            return
        self._ended[charge.key] = charge.witness.epoch, asyncio.get_running_loop().time()
        self._over &= {x.lease for each in self.state.charges.values() for x in each.mandate.leases}
        log.info("deputy.acts", tenant=short(charge.mandate.tenant), deployment=charge.mandate.name)
        for held in charge.mandate.leases:
            self._jobs.start(partial(self._end, charge, held), f"end {short(held.lease)}")

    def _is_only_writer(self, charge: Charge) -> bool:
        """The tenant's leases are over, or nobody has paid for them for as long as it takes to fence one."""
        _, since = self._ended[charge.key]
        over = all(x.lease in self._over for x in charge.mandate.leases)
        return over or asyncio.get_running_loop().time() - since >= FENCE_SEC

    def _has_left(self, charge: Charge) -> bool:
        """The same the other way round: only then does a tenant with data get its yes. An end that nobody answers is
        one after ``end_within``."""
        ours = (x for x in self._tenant.state.leases.values() if x.deployment == charge.name)
        return not charge.holds_data or all(x.is_over for x in ours)

    async def _end(self, charge: Charge, held: Held) -> None:
        for number in range(TRIES):
            now = self.state.charges.get(charge.key)
            if now is None or not now.acts or now.witness.epoch != charge.witness.epoch:
                return  # the tenant is back
            try:
                await self._ask_end(held)
                self._over.add(held.lease)
                return
            except (Unavailable, TimeoutError) as error:
                log.info("deputy.lease-left", lease=short(held.lease), why=str(error))
                await asyncio.sleep(2.0**number)

    async def _ask_end(self, held: Held) -> None:
        async with asyncio.timeout(END):
            stream = await self._open(held.provider, END)
            try:
                await write_frame(stream, streams.encode_header(streams.EndLease(held.lease, held.grant)))
                await read_frame(stream, streams.HEADER_MAX)
            except PeerError as error:
                raise Unavailable(error.code, error.message) from None
            finally:
                stream.abort()


async def _nothing(_: Iterable[str]) -> Sequence[str]:
    return ()


def _goal(recipe: Recipe, charge: Charge, now: Instant) -> Goal:
    """Our budget bounds an hour, too: what is left of it. Where that is nothing, only what is free fits."""
    goal = goal_of(recipe_wishes(recipe), recipe, digest(recipe), now)
    mandate = charge.mandate
    bounds = [x for x in (goal.max_msat_hour, mandate.hourly) if x is not None]
    if not mandate.budget:
        bounds.append(Msat(1))
    return replace(goal, max_msat_hour=min(bounds, default=None), ready=True)


def _refused(why: Reason) -> Refused:
    return Refused(why.code[:60], why.text[:500])


def changed(before: Deputy, after: Deputy) -> list[Row]:
    """The rows in which two states differ. What was spent is counted anew after a restart."""
    rows = [
        Row(KIND, _row_key(key), msgspec.msgpack.encode(charge))
        for key, charge in after.charges.items()
        if _lasting(before.charges.get(key)) != _lasting(charge)
    ]
    gone = before.charges.keys() - after.charges.keys()
    return rows + [Row(KIND, _row_key(key), b"") for key in sorted(gone)]


def _lasting(charge: Charge | None) -> Charge | None:
    """A renewal is not worth a write of the whole: a tenant has a whole term after our restart anyway."""
    if charge is None:
        return None
    return replace(charge, spent=Msat(0), witness=replace(charge.witness, until=Instant(0)))


def _row_key(key: Key) -> bytes:
    return key[0] + key[1].encode()
