# ruff: noqa: F403, F405
"""``kill -9`` at each boundary between journal and effect, over a journal on disk, in a process of its own.

The next start finds the same state as if nothing had happened, and does again what may not have been done.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dockage.adapters.sqlite.journal import SqliteJournal
from dockage.daemon import driver, wiring
from dockage.daemon.driver import Driver
from dockage.domain.lease import LeaseState
from dockage.domain.units import Duration, Sat
from dockage.node import effects as want
from dockage.node import events as told
from dockage.node import provider as selling_mind
from dockage.node import records
from dockage.node import tenant as renting_mind
from dockage.node.policy import TenantPolicy
from dockage.ports.machine import Row
from dockage.protocol import messages as say
from dockage.testing.clock import ManualClock
from node.parts import *

DEARER_CLOSE = SpendingTx("ce" * 32, b"dearer close", Sat(306))
DEARER_REFUND = SpendingTx("ea" * 32, b"dearer refund", Sat(206))
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
SUCCESSION = (
    *SELL[:11],
    says(proposal(CHANNEL2, expiry_height=EXPIRY + 2000), our_key=PROVIDER_KEY),
    says(say.AnnounceFunding(CHANNEL2, TXID, 2)),
    told.FundingSeen(CHANNEL2, 1),
    pays(CAPACITY - 330),
    told.BlockSeen(HEIGHT + 1),
    told.SpendBuilt(CHANNEL, CLOSE_TX),
    pays(1, CHANNEL2),
    told.BlockSeen(HEIGHT + 7),
    told.SpendBuilt(CHANNEL, DEARER_CLOSE),
    told.SpendSeen(CHANNEL, DEARER_CLOSE.txid, 1),
    told.SpendSeen(CHANNEL, DEARER_CLOSE.txid, 6),
    pays(2, CHANNEL2),
)
"""The provider's half of a refill: the old channel is used up, closed, and its close is replaced by a dearer one."""
FIRST = statement(1, 1.0)
SECOND_BILL = statement(2, 2.5, FIRST)
RENT = (
    told.BlockSeen(HEIGHT),
    rents(),
    from_provider(quote()),
    from_provider(say.AcceptChannel(CHANNEL, PROVIDER_KEY, 1)),
    told.FundingBuilt(CHANNEL, TXID, VOUT, b"funding", Sat(154)),
    told.FundingSeen(CHANNEL, 1),
    from_provider(notice(LeaseState.RUNNING)),
    states(FIRST),
    states(SECOND_BILL),
    told.EndRequested(LEASE, WHY),
    from_provider(notice(LeaseState.ENDED)),
    told.CloseRequested(CHANNEL),
    told.SpendSeen(CHANNEL, CLOSE_TX.txid, 1),
    told.SpendSeen(CHANNEL, CLOSE_TX.txid, 6),
)
REFILL = (
    *RENT[:9],
    told.BlockSeen(EXPIRY - 360),
    told.Ticked(),
    told.ChannelPlanned(PROVIDER, plan(CHANNEL2)),
    from_provider(say.AcceptChannel(CHANNEL2, PROVIDER_KEY, 1)),
    told.FundingBuilt(CHANNEL2, TXID, 4, b"successor", Sat(154)),
    told.FundingSeen(CHANNEL2, 1),
    told.SpendSeen(CHANNEL, CLOSE_TX.txid, 1),
    states(statement(3, 3.5, SECOND_BILL, received_sat=Sat(2))),
    told.SpendSeen(CHANNEL, CLOSE_TX.txid, 6),
)
"""The tenant's half: the successor is opened before the expiry, and takes over when the old channel is closed."""
REFUND = (
    *RENT[:11],
    told.BlockSeen(EXPIRY),
    told.SpendBuilt(CHANNEL, REFUND_TX),
    told.BlockSeen(EXPIRY + 6),
    told.SpendBuilt(CHANNEL, DEARER_REFUND),
    told.SpendSeen(CHANNEL, DEARER_REFUND.txid, 1),
    told.SpendSeen(CHANNEL, DEARER_REFUND.txid, 6),
)
"""The provider never closed: everything comes back, by the second try."""
LIVES = {"sell": SELL, "succession": SUCCESSION, "rent": RENT, "refill": REFILL, "refund": REFUND}
"""The lives of channels and leases, as the minds of both sides are told them."""
SHARED = {"sell": 0, "succession": 11, "rent": 0, "refill": 9, "refund": 11}
"""So many events at the beginning are swept elsewhere."""


class Life:
    """Feeds one script to a mind over a journal on disk, in a process of its own that may die at a boundary."""

    def __init__(self, folder: Path, life: str) -> None:
        self.journal, self.log = folder / "state.db", folder / "log"
        self.script = LIVES[life]
        self.sells = life in ("sell", "succession")
        self.left = self.burnt = 0

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
            clock = ManualClock(at(self._told()))
            state, step, outstanding = self._restored(rows)
            mind: Any = Driver(state, step, wiring.changed, self, self._perform, clock)  # type: ignore[arg-type]
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(mind.run(outstanding))
                await mind.tell(self._newest_block())  # a node looks at the chain first
                for number in range(self._told(), len(self.script)):
                    clock.pass_(Duration(at(number) - clock.now()))
                    await mind.tell(self.script[number])
                    self._note(f"told {number} after {self.burnt}")
                running.cancel()

    def _restored(self, rows: list[Row]) -> Any:
        channels = [
            records.decode_channel(r.value) for r in rows if r.kind in (records.EARNING, records.PAYING)
        ]
        if self.sells:
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
        self.burnt += 1
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, line: str) -> None:
        with self.log.open("a") as log:
            log.write(line.replace("\n", " ") + "\n")

    def _newest_block(self) -> told.AnyEvent:
        seen = self.script[: self._told() + 1]
        return next(event for event in reversed(seen) if isinstance(event, told.BlockSeen))

    # -- what is left of it --------------------------------------------------------------------------
    def _lines(self, kind: str) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.startswith(kind)]

    def _told(self) -> int:
        """What nobody got an answer to is said again."""
        return len(self._lines("told"))

    def first_boundary(self, after: int) -> int:
        """Of what only this life does: its first *after* events are another one's, too."""
        return int(self._lines("told")[after - 1].split()[-1]) + 1 if after else 1

    def acts(self) -> set[str]:
        """What it did to the machine and the chain; messages may be lost, and are asked for again."""
        said = ("want Send", "want ProposeClose")
        return {line for line in self._lines("want") if not line.startswith(said)}

    def outcome(self) -> Any:
        """All but how often the last bill was said (a final reading that is taken twice is billed twice at one price)
        and the moment of a wish to close: a start looks at the chain, too."""
        with closing(SqliteJournal(self.journal)) as journal:
            state = self._restored(list(journal.load()))[0]
        channels_ = {id_: replace(c, close_at=bool(c.close_at)) for id_, c in state.channels.items()}
        return channels_, [(x.id, x.state, x.limits, x.due, x.reason) for x in state.leases.values()]


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where there is such a place: SIGKILL spares what was written, so no disk need be waited for."""
    place = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=place) as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each event is told when the one before is on disk: none comes that could share its commit."""
    monkeypatch.setattr(driver, "PACE_SEC", 0.0)


@pytest.mark.parametrize("life", list(LIVES))
def test_a_process_killed_between_journal_and_effect_is_healed_at_the_next_start(
    folder: Path, life: str
) -> None:
    """A sweep: every boundary there is."""
    (folder / "whole").mkdir()
    whole = Life(folder / "whole", life)
    assert whole.run(0)
    first = boundary = whole.first_boundary(SHARED[life])
    while True:
        (folder / str(boundary)).mkdir()
        died = Life(folder / str(boundary), life)
        if died.run(boundary):
            break
        assert died.run(0)
        assert died.outcome() == whole.outcome(), boundary
        assert died.acts() >= whole.acts(), boundary
        boundary += 1
    assert boundary - first > 2 * (len(LIVES[life]) - SHARED[life])
