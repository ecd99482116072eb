# ruff: noqa: F403, F405
"""``kill -9`` at each boundary between journal and effect, over a journal on disk, in a process of its own.

The next start finds the same state as if nothing had happened, and does again what may not have been done.
"""

from __future__ import annotations

import asyncio
import os
import signal
import traceback
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dockage.adapters.sqlite.journal import SqliteJournal
from dockage.daemon import wiring
from dockage.daemon.driver import Driver
from dockage.domain.lease import LeaseState
from dockage.domain.units import Duration, Sat
from dockage.node import effects as want
from dockage.node import events as told
from dockage.node import provider as selling_mind
from dockage.node import records
from dockage.node import tenant as renting_mind
from dockage.node.policy import TenantPolicy
from dockage.ports import Row
from dockage.protocol import messages as say
from dockage.testing.clock import ManualClock
from node.parts import *

SELL = (
    told.BlockSeen(HEIGHT),
    says(proposal(), our_key=PROVIDER_KEY),
    says(say.AnnounceFunding(CHANNEL, TXID, VOUT)),
    told.FundingSeen(CHANNEL, 1),
    says(say.OpenLease(quote(), SIG64)),
    told.HostPrepared(LEASE),
    reads(0, 0),
    reads(1, 1),
    pays(1),
    reads(2, 3),
    pays(3),
    says(say.EndLease(LEASE)),
    reads(3, 4, final=True),
    told.HostCleared(LEASE),
    pays(4),
    says(say.CloseChannel(CHANNEL)),
    told.SpendBuilt(CHANNEL, CLOSE_TX),
    told.SpendSeen(CHANNEL, CLOSE_TX.txid, 1),
    told.SpendSeen(CHANNEL, CLOSE_TX.txid, 6),
)
FIRST = statement(1, 1.0)
RENT = (
    told.BlockSeen(HEIGHT),
    rents(),
    from_provider(quote()),
    from_provider(say.AcceptChannel(CHANNEL, PROVIDER_KEY, 1)),
    told.FundingBuilt(CHANNEL, TXID, VOUT, b"funding", Sat(154)),
    told.FundingSeen(CHANNEL, 1),
    from_provider(notice(LeaseState.RUNNING)),
    states(FIRST),
    states(statement(2, 2.5, FIRST)),
    told.EndRequested(LEASE, WHY),
    from_provider(notice(LeaseState.ENDED)),
    told.CloseRequested(CHANNEL),
    told.SpendSeen(CHANNEL, CLOSE_TX.txid, 1),
    told.SpendSeen(CHANNEL, CLOSE_TX.txid, 6),
)
"""The lives of a channel and a lease, as the minds of both sides are told them."""


STRIDE = 1 if os.environ.get("DOCKAGE_TEST_ALL_BOUNDARIES") else 5


class Life:
    """Feeds one script to a mind over a journal on disk, in a process of its own that may die at a boundary."""

    def __init__(self, folder: Path, who: str) -> None:
        self.journal, self.log = folder / "state.db", folder / "log"
        self.script = SELL if who == "provider" else RENT
        self.who = who
        self.left = 0

    def run(self, boundary: int) -> bool:
        """In a child; False if it was killed at *boundary* (0: never)."""
        child = os.fork()
        if not child:
            self.left = boundary
            try:
                asyncio.run(self._feed())
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
        return not os.WIFSIGNALED(status)

    async def _feed(self) -> None:
        with closing(SqliteJournal(self.journal)) as self._inner:
            rows = list(self._inner.load())
            clock = ManualClock(at(0))
            state, step, outstanding = self._restored(rows)
            driver: Any = Driver(state, step, wiring.changed, self, self._perform, clock)  # type: ignore[arg-type]
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(driver.run(outstanding))
                await driver.tell(self.script[0])  # a node looks at the chain first
                for number in range(self._told(), len(self.script)):
                    clock.pass_(Duration(at(number) - clock.now()))
                    await driver.tell(self.script[number])
                    self._note(f"told {number}")
                running.cancel()

    def _restored(self, rows: list[Row]) -> Any:
        channels = [
            records.decode_channel(r.value) for r in rows if r.kind in (records.EARNING, records.PAYING)
        ]
        if self.who == "provider":
            sold = [records.decode_sold_lease(r.value) for r in rows if r.kind == records.SOLD]
            seller = selling_mind.restore(POLICY, sold, channels)
            return seller, selling_mind.step, selling_mind.outstanding(seller)
        rented = [records.decode_rented_lease(r.value) for r in rows if r.kind == records.RENTED]
        renter = renting_mind.restore(TENANT, TenantPolicy(), rented, channels)
        return renter, renting_mind.step, renting_mind.outstanding(renter)

    def write(self, rows: Sequence[Row]) -> None:
        self._burn()
        self._inner.write(rows)
        self._burn()

    def _perform(self, effect: want.AnyEffect) -> None:
        self._note(f"want {effect!r}")
        self._burn()

    def _burn(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, line: str) -> None:
        with self.log.open("a") as log:
            log.write(line.replace("\n", " ") + "\n")

    # -- what is left of it --------------------------------------------------------------------------
    def _lines(self, kind: str) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.startswith(kind)]

    def _told(self) -> int:
        """What nobody got an answer to is said again."""
        return len(self._lines("told"))

    def acts(self) -> set[str]:
        """What it did to the machine and the chain; messages may be lost, and are asked for again."""
        return {line for line in self._lines("want") if not line.startswith("want Send")}

    def outcome(self) -> Any:
        """All but how often the last bill was said: a final reading that is taken twice is billed twice at one
        price."""
        with closing(SqliteJournal(self.journal)) as journal:
            state = self._restored(list(journal.load()))[0]
        return state.channels, [(x.id, x.state, x.limits, x.due, x.reason) for x in state.leases.values()]


@pytest.mark.parametrize("who", ["provider", "tenant"])
def test_a_process_killed_between_journal_and_effect_is_healed_at_the_next_start(
    tmp_path: Path, who: str
) -> None:
    (tmp_path / "whole").mkdir()
    whole = Life(tmp_path / "whole", who)
    assert whole.run(0)
    boundary, killed = 1, 0
    while True:
        folder = tmp_path / str(boundary)
        folder.mkdir()
        life = Life(folder, who)
        if life.run(boundary):
            break
        killed += 1
        assert life.run(0)
        assert life.outcome() == whole.outcome(), boundary
        assert life.acts() >= whole.acts(), boundary
        boundary += STRIDE
    assert killed > 5
