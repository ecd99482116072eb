"""Our deputies: they are told what they may run in our place, and asked for the term for as long as we live.

Counterpart: ``deputising.py`` on the deputy's side. The one rule: from before a deputy hears of a deployment until it
has confirmed that it has no say any more, our own controller acts for it only within a term that the deputy gave.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from functools import partial

import msgspec
import structlog
from msgspec.structs import replace

from dockage.domain.errors import DockageError, PeerError, Unavailable, UsageError
from dockage.domain.identity import LeaseId, NodeKey, short
from dockage.domain.offer import RELAY
from dockage.domain.reason import Reason
from dockage.domain.term import DRIFT, LENGTH
from dockage.domain.units import HOUR, MINUTE, SECOND, Duration, Instant, Msat, Sat, after, since
from dockage.node import controller_words as say
from dockage.node.kept import Stage
from dockage.node.tenant import RentedLease, Tenant
from dockage.ports.machine import Clock, Journal, Keys, Row
from dockage.protocol import mandates, streams
from dockage.protocol.docker.recipe import decode, encode
from dockage.protocol.grants import TERM, Grant, sign_grant
from dockage.protocol.letters import Letter, sign_letter
from dockage.protocol.mandates import (
    LEASES_MAX,
    AskTerm,
    Give,
    Held,
    Mandate,
    Refused,
    Said,
    Taken,
    sign_mandate,
)
from dockage.wire.frames import read_frame, write_frame

from .driver import Driver
from .keeping import Keeping
from .leaving import Leaving
from .machines import Machines
from .ondisk import on_disk
from .peers import Opener
from .perform import reason_of
from .rows import kept
from .steps import Steps
from .tasks import Jobs

log = structlog.get_logger("dockage.deputies")

KIND = "deputy.mine"
ASK_SEC = 4.0
TALK = 3.0
"""Seconds: three questions fit into a term."""
GIVE = 10.0
SLACK = Duration(10 * MINUTE)
"""Between the ends of a mandate by two clocks."""
RENEW = Duration(8 * HOUR)
"""The grants in a mandate are good for a day."""
LEAVE_AGAIN = 4.0
"""Seconds after a break; it doubles up to a minute."""
ON_THEIR_WAY = Reason(
    "deputy.images",
    "the images of what runs now are on their way to it: until then it would run what was before",
)


class Mine(msgspec.Struct, frozen=True):
    """One deployment of ours that has a deputy."""

    name: str
    deputy: NodeKey
    budget: Sat
    hourly: Msat | None
    lasts: Duration
    """From each mandate to its end."""
    recipe: bytes
    """What is to run, also after a restart that finds all leases over."""
    version: int = 0
    content: bytes = b""
    """Hash of what the newest mandate says."""
    given_at: Instant = Instant(0)
    expires: Instant = Instant(0)
    """Of the newest mandate that may have reached the deputy."""


class Standing(msgspec.Struct, frozen=True):
    """For people: what is known of one deputy. Not stored."""

    epoch: int = 1
    heard_at: Instant = Instant(0)
    taken: int = 0
    """The newest version that it has confirmed."""
    acts: bool = False
    trouble: Reason | None = None
    """Why it does not answer as it should."""
    refused: Reason | None = None
    """Why it did not take the newest mandate."""


class Deputies:
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
        steps: Steps,
    ) -> None:
        self._keys, self._clock, self._journal, self._machines = keys, clock, journal, machines
        self._keeping, self._tenant, self._open = keeping, tenant, open_stream
        self._jobs, self.leaving = jobs, Leaving(self._talk, open_stream, steps)
        self._mine = {x.name: x for x in kept(rows, KIND, Mine)}
        self._standing: dict[str, Standing] = {}
        self._renewed: dict[str, float] = {}
        """When the last question that got a yes was asked, by a clock that nobody sets."""
        self._locks: dict[str, asyncio.Lock] = {}
        self._sent: set[str] = set()
        """Deployments whose images are on their way to the deputy."""

    def all(self) -> list[tuple[Mine, Standing]]:
        return [(x, self._standing.get(x.name, Standing())) for x in self._mine.values()]

    def deputy_runs(self, name: str) -> bool:
        """Whether the deputy's copies of *name* ran when it answered last."""
        return name in self._mine and self._standing.get(name, Standing()).acts

    # -- our user ------------------------------------------------------------------------------------
    async def add(self, name: str, machine: str, budget: Sat, hourly: Msat | None, lasts: Duration) -> Mine:
        """Returns once the deputy has the images and has taken the mandate. Raises UsageError with its refusal,
        UsageError("deployment.unknown" | "deputy.other") and what ``Leaving.leave`` raises."""
        deputy, known = self._machines.find(machine).key, self._mine.get(name)
        if known is not None and known.deputy != deputy:
            raise UsageError(
                "deputy.other", f"{name} has a deputy already: `dockage deputy remove {name}` first"
            )
        recipe = await self._keeping.engage(name)
        recipe = self._keeping.hands.proven(name) or recipe
        await self.leaving.leave(name, deputy, recipe)  # before it knows: until then we act alone
        known = self._mine.get(name)
        lasting = (known.version, known.expires) if known else (0, Instant(0))
        mine = Mine(name, deputy, budget, hourly, lasts, encode(recipe), lasting[0], expires=lasting[1])
        await self._keep(mine)
        async with self._lock(name):
            try:
                mine = await self._give(mine)
            except DockageError as error:
                if known is None and isinstance(error, UsageError):  # it has refused: it has no say
                    await self._forget(name)
                raise
            await self._ask(mine)
            await self._bring_up_to_date(mine)
        return mine

    async def remove(self, name: str, *, force: bool) -> Mine:
        """*force*: also if the deputy does not answer; our user vouches that it does not run. Raises
        UsageError("deputy.unknown"), Unavailable("deputy.silent")."""
        mine = self._mine.get(name)
        if mine is None:
            raise UsageError(
                "deputy.unknown", f"{name} has no deputy: `dockage deputy list` shows those that have"
            )
        async with self._lock(name):
            try:
                await self._withdraw(mine)
            except DockageError as error:
                if not force:
                    raise Unavailable("deputy.silent", self._may_still_act(mine, error)) from None
            await self._forget(name)
        return mine

    def _may_still_act(self, mine: Mine, error: DockageError) -> str:
        left = max(0, mine.expires - self._clock.now()) // HOUR
        return (
            f"the deputy of {mine.name} does not confirm that it stops ({error.message}); its mandate ends by itself "
            f"in {left} h. If you know that it does not run: `dockage deputy remove --force {mine.name}`"
        )

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    # -- as long as we live --------------------------------------------------------------------------
    async def run(self) -> None:
        await self._keeping.attached.wait()
        while True:
            await asyncio.gather(*(self._look_after(name) for name in list(self._mine)))
            await asyncio.sleep(ASK_SEC)

    async def _look_after(self, name: str) -> None:
        async with self._lock(name):
            mine = self._mine.get(name)
            if mine is None:
                return
            try:
                await self._attend(mine)
            except DockageError as error:
                self._note(name, trouble=reason_of(error))
                log.info("deputy.silent", deployment=name, code=error.code, why=error.message)
            except Exception:  # a bug of ours
                log.exception("deputy.crashed", deployment=name)
        await self._drop_late_term(name)

    async def _attend(self, mine: Mine) -> None:
        of = self._keeping.state.deployments.get(mine.name)
        if of is None and mine.name not in self._keeping.copies.deployments():
            await self._withdraw(mine)  # our user took it down
            return await self._forget(mine.name)
        if of is None:
            return
        if mine.version and self._clock.now() >= mine.expires + SLACK and not await self._answers(mine):
            return await self._keeping.tell(say.Shared(mine.name, shared=False))  # it has no say any more
        self._keeping.hands.recipes.setdefault(mine.name, decode(mine.recipe))
        if not of.shared:
            await self._keeping.tell(say.Shared(mine.name, shared=True))
        if not mine.content:
            mine = await self._give_or_note(mine)
        await self._ask(mine)
        await self._bring_up_to_date(mine)

    async def _bring_up_to_date(self, mine: Mine) -> None:
        """After a question: with a new term what was granted before is void."""
        if self._content(mine) != mine.content or since(mine.given_at, self._clock.now()) >= RENEW:
            await self._give_or_note(mine)

    async def _give_or_note(self, mine: Mine) -> Mine:
        """What it has from before is still good if it refuses the new one."""
        try:
            return await self._give(mine)
        except UsageError as error:
            self._note(mine.name, refused=reason_of(error))
            if error.code == "image.unknown":
                self._leave_meanwhile(mine.name)
            return self._mine[mine.name]

    def _leave_meanwhile(self, name: str) -> None:
        """A gigabyte takes longer than a term."""
        if name not in self._sent:
            self._note(name, refused=ON_THEIR_WAY)
            self._sent.add(name)
            if not self._jobs.start(partial(self._leave, name), f"leave images of {name}"):
                self._sent.discard(name)

    async def _leave(self, name: str) -> None:
        try:
            await self._leave_until_there(name)
        finally:
            self._sent.discard(name)

    async def _leave_until_there(self, name: str) -> None:
        wait = LEAVE_AGAIN
        while (mine := self._mine.get(name)) is not None:
            try:
                await self.leaving.leave(name, mine.deputy, decode(self._recipe(mine)))
                break
            except UsageError as error:
                return self._note(name, refused=reason_of(error))
            except DockageError as error:
                log.info("deputy.images", deployment=name, code=error.code, why=error.message)
                await asyncio.sleep(wait)
                wait = min(60.0, 2 * wait)
        async with self._lock(name):
            if (mine := self._mine.get(name)) is not None:
                await self._keep(replace(mine, content=b""))  # it gets a mandate anew

    async def _answers(self, mine: Mine) -> bool:
        """With a mandate that is over: whether it may have a new one."""
        try:
            await self._talk(mine.deputy, AskTerm(mine.name, 0, serves=False), TALK)
        except DockageError:
            return False
        return True

    async def _drop_late_term(self, name: str) -> None:
        """A step of the clock makes no term longer."""
        renewed, limit = self._renewed.get(name), (LENGTH - DRIFT) / SECOND
        if renewed is not None and self._time() - renewed >= limit:
            del self._renewed[name]
            await self._keeping.tell(say.TermLost(name))

    # -- the mandate ---------------------------------------------------------------------------------
    async def _give(self, mine: Mine) -> Mine:
        now = self._clock.now()
        recipe = self._recipe(mine)
        version, expires = max(now, mine.version + 1), after(now, mine.lasts)
        mine = replace(mine, recipe=recipe, version=version, content=self._content(mine), given_at=now)
        await self._keep(replace(mine, expires=max(expires, mine.expires)))
        await self._keeping.tell(say.Shared(mine.name, shared=True))
        await self._send(self._mandate(mine, expires, self._held(mine), recipe))
        self._note(mine.name, taken=version, refused=None)
        return self._mine[mine.name]

    async def _withdraw(self, mine: Mine) -> None:
        mine = replace(mine, version=max(self._clock.now(), mine.version + 1))
        await self._keep(mine)
        expires = max(mine.expires, after(self._clock.now(), Duration(HOUR)))
        await self._send(self._mandate(mine, expires, (), b""))

    def _mandate(self, mine: Mine, expires: Instant, held: tuple[Held, ...], recipe: bytes) -> Mandate:
        me, to = self._keys.node, (mine.deputy, mine.name)
        letter = sign_letter(Letter(me, *to, expires), self._keys.sign) if recipe else b""
        bounds = (mine.budget, mine.hourly)
        return Mandate(me, *to, mine.version, expires, *bounds, held, recipe, letter)

    async def _send(self, mandate: Mandate) -> None:
        answer = await self._talk(mandate.deputy, Give(sign_mandate(mandate, self._keys.sign)), GIVE)
        if isinstance(answer, Refused):
            raise UsageError(answer.code[:40], f"the deputy refused: {answer.message}")
        if not isinstance(answer, Taken) or answer.version != mandate.version:
            raise PeerError("mandate.answer", "the deputy took another mandate than it was given")

    def _recipe(self, mine: Mine) -> bytes:
        """As it was last when all was well with it: nobody is there to take back at the deputy what is bad."""
        known = self._keeping.hands.proven(mine.name)
        return mine.recipe if known is None else encode(known)

    def _held(self, mine: Mine) -> tuple[Held, ...]:
        """Our own leases for it, those at gateways too, each with our word that the deputy may end it."""
        of = self._keeping.state.deployments.get(mine.name)
        epoch = of.epoch if of else 0
        until = after(self._clock.now(), TERM)
        return tuple(
            Held(x.provider, x.id, self._word(x.id, mine.deputy, epoch, until))
            for x in self._leases(mine.name)
        )

    def _word(self, lease: LeaseId, deputy: NodeKey, epoch: int, until: Instant) -> bytes:
        return sign_grant(Grant(self._keys.node, lease, deputy, ("end",), epoch, until), self._keys.sign)

    def _leases(self, name: str) -> list[RentedLease]:
        """A relay is the node's own, whatever our user calls a deployment."""
        of = [x for x in self._tenant.state.leases.values() if x.deployment == name and x.service != RELAY]
        return [x for x in of if not x.is_leaving][-LEASES_MAX:]

    def _content(self, mine: Mine) -> bytes:
        of = self._keeping.state.deployments.get(mine.name)
        leases = sorted(x.id for x in self._leases(mine.name))
        what = (self._recipe(mine), leases, mine.budget, mine.hourly, mine.lasts, of.epoch if of else 0)
        return hashlib.sha256(msgspec.msgpack.encode(what)).digest()

    # -- the term ------------------------------------------------------------------------------------
    async def _ask(self, mine: Mine) -> None:
        """Twice where somebody else had it: the second time for a term of our own."""
        for _ in range(2):
            epoch, asked = self._standing.get(mine.name, Standing()).epoch, self._time()
            await self._keeping.tell(say.TermAsked(mine.name, epoch))
            asked_at = self._keeping.state.terms[mine.name].asked_at
            said = await self._talk(mine.deputy, AskTerm(mine.name, epoch, self._serves(mine.name)), TALK)
            if isinstance(said, Refused):
                await self._keep(replace(mine, content=b""))  # it gets a mandate anew
                raise UsageError(said.code[:40], f"the deputy refused: {said.message}")
            if not isinstance(said, Said):
                raise PeerError("mandate.answer", "the deputy answered something else than it was asked")
            self._note(mine.name, heard_at=self._clock.now(), acts=said.acts, trouble=None)
            if said.yes and said.epoch == epoch:
                self._renewed[mine.name] = asked
                granted = say.TermGranted(mine.name, mine.deputy, epoch, asked_at, (mine.deputy,))
                return await self._keeping.tell(granted)
            self._note(mine.name, epoch=said.epoch + 1)

    def _serves(self, name: str) -> bool:
        of, now = self._keeping.state.deployments.get(name), self._clock.now()
        if of is None:
            return False
        return any(x.stage is Stage.SERVING and x.verdict(now).serves for x in of.replicas.values())

    async def _talk(self, deputy: NodeKey, request: mandates.Request, limit: float) -> mandates.Answer:
        try:
            async with asyncio.timeout(limit):
                stream = await self._open(deputy, limit)
                try:
                    head = streams.encode_header(streams.Deputy())
                    await write_frame(stream, head, mandates.encode_said(request))
                    return mandates.decode_answer(await read_frame(stream, mandates.ANSWER_MAX))
                finally:
                    stream.abort()
        except TimeoutError:
            raise Unavailable("deputy.silent", f"the deputy {short(deputy)} does not answer") from None

    # -- books ---------------------------------------------------------------------------------------
    def _note(self, name: str, **what: object) -> None:
        self._standing[name] = replace(self._standing.get(name, Standing()), **what)

    async def _keep(self, mine: Mine) -> None:
        self._mine[mine.name] = mine
        row = Row(KIND, mine.name.encode(), msgspec.msgpack.encode(mine))
        await on_disk(self._journal.write, [row])

    async def _forget(self, name: str) -> None:
        self._mine.pop(name, None)
        self._standing.pop(name, None)
        self._renewed.pop(name, None)
        await on_disk(self._journal.forget, [(KIND, name.encode())])
        await self._keeping.tell(say.Shared(name, shared=False))

    def _time(self) -> float:
        return asyncio.get_running_loop().time()
