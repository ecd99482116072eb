"""What the provider's mind wants, performed: statements sent, the machine worked on, channels closed.

Counterpart: ``perform_tenant.py``; the work on the machine is in ``hostwork.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from dockage.domain.errors import UsageError
from dockage.domain.identity import ChannelId
from dockage.domain.reason import Reason
from dockage.node import effects as want
from dockage.node import events as told
from dockage.node.provider import Provider
from dockage.ports.hosting import ContainerHost

from .driver import Driver
from .hostwork import HostWork
from .peers import Postman
from .perform import Performer, reason_of
from .rail import Rail
from .tasks import Jobs
from .together import Together

NOT_WORTH_ADDING = Reason(
    "channel.uneconomic",
    "less was paid than closing this channel, too, would cost: wait for a lower fee rate",
)


class ProviderPerformer(Performer):
    def __init__(self, postman: Postman, rail: Rail | None, jobs: Jobs, host: ContainerHost) -> None:
        super().__init__(postman, rail, jobs)
        self._on_host = HostWork(host, jobs, lambda: self.driver)
        self.together = Together(rail) if rail is not None else None
        self.driver: Driver[Provider]

    def perform(self, effect: want.AnyEffect) -> None:
        match effect:
            case want.Send(to=to, message=message):
                self._postman.send(to, message)
            case want.Prepare(lease=lease, limits=limits):
                self._on_host.prepare(lease, limits)
            case want.Pause(lease=lease) | want.Thaw(lease=lease):
                self._on_host.freeze_or_thaw(lease)
            case want.Finish(lease=lease):
                self._on_host.finish(lease)
            case want.ProposeClose(channel=channel, give_back=give_back):
                self._once("propose", channel, lambda _: self._propose(channel, give_back=give_back))
            case want.Settle(channels=channels):
                self._once("settle", channels[0], lambda rail: self._settle(rail, channels))
            case want.Broadcast(channel=channel, raw=raw):
                self._broadcast(channel, raw)
            case (
                want.Pay()
                | want.PlanChannel()
                | want.Fund()
                | want.CoSign()
                | want.Refund()
                | want.Accuse()
                | want.Moment()
                | want.Look()
            ):
                raise AssertionError(f"a provider does not want {effect!r}")
            case _:
                assert_never(effect)

    async def _propose(self, id_: ChannelId, *, give_back: bool) -> None:
        assert self.together is not None
        channel = self.driver.state.channels[id_]
        try:
            proposal = await self.together.propose(channel, give_back=give_back)
        except UsageError as error:
            await self.driver.post(told.SpendFailed(id_, reason_of(error)))
        else:
            self._postman.send(channel.peer, proposal)

    async def _settle(self, rail: Rail, ids: tuple[ChannelId, ...]) -> None:
        """Nobody's half is waited for any more."""
        assert self.together is not None
        for id_ in ids:
            self.together.forget(id_)
        channels = [self.driver.state.channels[id_] for id_ in ids]
        try:
            tx, closed = await rail.settle([c for c in channels if not c.settled_txid])
        except UsageError as error:
            await self._not_settled(ids, reason_of(error))
        else:
            first, *also = [id_ for id_ in ids if id_ in closed]
            await self.driver.post(told.SpendBuilt(first, tx, tuple(also)))
            await self._not_settled([id_ for id_ in ids if id_ not in closed], NOT_WORTH_ADDING)

    async def _not_settled(self, ids: Sequence[ChannelId], why: Reason) -> None:
        for id_ in ids:
            await self.driver.post(told.SpendFailed(id_, why))
