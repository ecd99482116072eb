"""At the brim: a tenant, a provider and a chain that does its worst, with every amount and height at its edge.

Both sides are the real machine of ``domain/channel``; the chain between them confirms, forgets, reorganises, and lets
closes and refunds race. Signatures are numbers here, templates are amounts: what is checked is who ends up with what.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dockage.domain import channel as ch
from dockage.domain.channel import (
    BURIED,
    RESERVE,
    SETTLE_BEFORE_EXPIRY,
    STOP_BEFORE_EXPIRY,
    Channel,
    ChannelState,
    SpendingTx,
    Terms,
)
from dockage.domain.errors import PeerError
from dockage.domain.identity import ChannelId, NodeKey
from dockage.domain.reason import Reason
from dockage.domain.units import Sat

EXPIRY = 1000
SUPPLY = 21_000_000 * 100_000_000
CAPACITIES = (2 * RESERVE, 2 * RESERVE + 1, 3 * RESERVE, 10_000, 2**32, SUPPLY)
EDGES = tuple(
    EXPIRY + at + off for at in (-STOP_BEFORE_EXPIRY, -SETTLE_BEFORE_EXPIRY, 0) for off in (-1, 0, 1)
)
FUNDING = "ab" * 32
LOST = Reason("channel.funding-lost", "gone")


@dataclass(frozen=True)
class Spend:
    """What a transaction does with the channel; its first outputs go to the tenant."""

    txid: str
    to_tenant: int
    to_provider: int
    fee: int
    refund: bool

    @property
    def tx(self) -> SpendingTx:
        return SpendingTx(self.txid, b"", Sat(self.fee))


class Brim(RuleBasedStateMachine):
    @initialize(capacity=st.sampled_from(CAPACITIES), needed=st.sampled_from((0, 1, 3, 6)))
    def agree(self, capacity: int, needed: int) -> None:
        terms = Terms(b"\2" * 33, b"\3" * 33, EXPIRY, Sat(capacity), b"\x51\x20" + bytes(32))
        blank = Channel(ChannelId(b"c" * 16), NodeKey(b"p" * 32), terms, needed=needed)
        self.tenant = self.provider = ch.fund(blank, FUNDING, 0, 500)
        self.kept = self.tenant, self.provider
        """What is on both disks: a restart goes on from there."""
        self.height = 600
        self.signed: list[int] = []
        self.served = 0
        """What the provider has done its part for: each payment it took."""
        self.made: dict[str, Spend] = {}
        self.funded = 0
        """Depth of the funding; -1: no node knows it."""
        self.mined: tuple[Spend, int] | None = None
        """What spends the channel, at which depth."""

    # -- payments ------------------------------------------------------------------------------------
    def sign(self, total: int) -> None:
        """As the tenant does: its new total is on disk before the signature leaves."""
        try:
            self.tenant = ch.pay(self.tenant, Sat(total), b"")
        except PeerError:
            assert not self.tenant.is_live or not self.tenant.paid < total <= self.tenant.terms.spendable
            return
        self.kept = self.tenant, self.kept[1]
        self.signed.append(total)

    @rule(total=st.one_of(st.integers(-1, 3), st.integers(0, SUPPLY + 1)))
    def pay(self, total: int) -> None:
        self.sign(total)

    @rule(off=st.integers(-RESERVE - 1, 1))
    def pay_nearly_all(self, off: int) -> None:
        self.sign(self.tenant.terms.spendable + off)

    @rule(off=st.integers(-1, 2))
    def pay_a_little(self, off: int) -> None:
        self.sign(self.tenant.paid + off)

    @precondition(lambda self: self.signed)
    @rule(data=st.data())
    def a_payment_arrives(self, data: st.DataObject) -> None:
        """In any order, any number of times, or never."""
        total = data.draw(st.sampled_from(self.signed[-3:] + self.signed[:1]))
        before = self.provider
        try:
            self.provider = ch.pay(before, Sat(total), b"%d" % total)
        except PeerError:
            assert self.provider is before
            return
        self.served = self.provider.paid
        self.kept = self.kept[0], self.provider

    @rule()
    def the_provider_shows_its_best(self) -> None:
        """A tenant whose disk is older than its word goes on from its own signature."""
        if self.tenant.is_live and self.tenant.paid < self.provider.paid <= self.tenant.terms.spendable:
            self.tenant = ch.pay(self.tenant, self.provider.paid, b"")
            self.kept = self.tenant, self.kept[1]

    # -- restarts ------------------------------------------------------------------------------------
    @rule()
    def both_restart(self) -> None:
        self.tenant, self.provider = self.kept

    # -- the chain -----------------------------------------------------------------------------------
    @rule(height=st.sampled_from(EDGES))
    def time_passes(self, height: int) -> None:
        if height <= self.height:
            return
        self.height = height
        if self.funded >= 0:
            self.funded = BURIED
        if self.mined:
            self.mined = self.mined[0], BURIED
        self.look()

    @rule(blocks=st.integers(1, BURIED))
    def blocks_come(self, blocks: int) -> None:
        self.height += blocks
        if self.funded >= 0:
            self.funded += blocks
        if self.mined:
            self.mined = self.mined[0], self.mined[1] + blocks
        self.look()

    @precondition(lambda self: not self.mined or self.mined[1] < BURIED)
    @rule(depth=st.integers(-1, 2))
    def reorganisation(self, depth: int) -> None:
        """Whatever had spent it is undone; at -1 its funding is gone, too."""
        if self.funded < BURIED:
            self.funded, self.mined = depth, None
        elif self.mined:
            self.mined = None
        self.look()

    def look(self) -> None:
        """As the chain's watch tells both (``daemon/chainwatch``)."""
        self.tenant, self.provider = self.seen(self.tenant), self.seen(self.provider)
        self.kept = self.tenant, self.provider

    def seen(self, channel: Channel) -> Channel:
        channel = ch.expire(channel, self.height)
        if self.funded < 0:
            return ch.miss(channel)
        if self.mined:
            spend, depth = self.mined
            return ch.settle(channel, spend.txid, depth)
        if channel.settled_txid:
            channel = ch.settle(channel, channel.settled_txid, 0)
        return ch.confirm(channel, self.funded)

    @precondition(lambda self: self.funded < 0)
    @rule()
    def the_funding_is_given_up(self) -> None:
        self.tenant, self.provider = ch.vanish(self.tenant, LOST), ch.vanish(self.provider, LOST)
        self.kept = self.tenant, self.provider

    # -- the ends ------------------------------------------------------------------------------------
    @rule(fee=st.sampled_from((154, 205, RESERVE, 50_000)))
    def close(self, fee: int) -> None:
        """For the newest payment and at any fee that leaves the provider a relayed output."""
        channel = self.provider
        may = channel.is_live or channel.state is ChannelState.CLOSING
        if not may or not channel.paid or channel.settled_txid or channel.paid - fee < RESERVE:
            return
        spend = Spend(
            f"close {channel.paid} {fee}",
            channel.terms.capacity - channel.paid,
            channel.paid - fee,
            fee,
            False,
        )
        self.made[spend.txid] = spend
        self.provider = ch.spend(channel, spend.tx, ChannelState.CLOSING)
        self.kept = self.kept[0], self.provider

    @rule(fee=st.sampled_from((138, RESERVE, 50_000)))
    def take_back(self, fee: int) -> None:
        channel = self.tenant
        due = channel.state in (ChannelState.EXPIRED, ChannelState.REFUNDING)
        if not due or channel.settled_txid or channel.terms.capacity - fee < RESERVE:
            return
        spend = Spend(f"refund {fee}", channel.terms.capacity - fee, 0, fee, True)
        self.made[spend.txid] = spend
        self.tenant = ch.spend(channel, spend.tx, ChannelState.REFUNDING)
        self.kept = self.tenant, self.kept[1]

    @precondition(lambda self: self.made and not self.mined and self.funded > 0)
    @rule(data=st.data())
    def one_of_them_confirms(self, data: st.DataObject) -> None:
        """The race: any that was ever made, also an older close or one at a lower fee."""
        spend = self.made[data.draw(st.sampled_from(sorted(self.made)))]
        if spend.refund and self.height < EXPIRY:
            return  # consensus
        self.mined = spend, 1
        self.look()

    # -- what always holds ---------------------------------------------------------------------------
    @invariant()
    def the_sums_are_right(self) -> None:
        for spend in self.made.values():
            assert spend.to_tenant + spend.to_provider + spend.fee == self.tenant.terms.capacity
            assert spend.to_tenant >= RESERVE
            assert spend.to_provider == 0 or spend.to_provider >= RESERVE

    @invariant()
    def the_tenant_never_loses_more_than_it_signed(self) -> None:
        assert self.provider.paid <= max(self.signed, default=0)
        assert self.tenant.paid == max(self.signed, default=0)
        for spend in self.made.values():
            own = self.tenant.terms.capacity - (spend.fee if spend.refund else max(self.signed))
            assert spend.to_tenant >= own

    @invariant()
    def the_provider_holds_what_it_served_for(self) -> None:
        """Nothing is served for a total whose signature is not on its disk; it never goes down."""
        assert self.provider.paid == self.served
        assert self.provider.signature == (b"%d" % self.served if self.served else b"")

    @invariant()
    def a_close_is_for_a_total_that_was_signed(self) -> None:
        capacity = self.tenant.terms.capacity
        assert all(capacity - s.to_tenant in self.signed for s in self.made.values() if not s.refund)

    @invariant()
    def no_row_and_no_transaction_is_forgotten(self) -> None:
        known = {tx.txid for side in (self.tenant, self.provider) for tx in side.spending}
        assert known == set(self.made)
        assert (self.tenant.txid, self.provider.txid) == (FUNDING, FUNDING)

    @invariant()
    def no_refund_exists_before_the_expiry(self) -> None:
        assert self.height >= EXPIRY or not any(spend.refund for spend in self.made.values())

    @invariant()
    def nothing_is_served_near_the_expiry_nor_paid_after_it(self) -> None:
        left = EXPIRY - self.height
        for side in (self.tenant, self.provider):
            assert not side.serves_at(self.height) or left > STOP_BEFORE_EXPIRY
            assert left > SETTLE_BEFORE_EXPIRY or not side.is_live or side.must_settle_at(self.height)

    @invariant()
    def both_agree_on_what_is_buried(self) -> None:
        for side in (self.tenant, self.provider):
            if side.state is ChannelState.CLOSED:
                assert self.mined is not None
                assert side.settled_txid == self.mined[0].txid

    @invariant()
    def while_it_is_live_the_next_close_is_worth_all_that_was_taken(self) -> None:
        """Whatever the chain did: a funding that is there, unspent, before the expiry, is the provider's to close."""
        channel = self.seen(self.provider)
        if self.funded > 0 and not self.mined and self.height < EXPIRY and channel.paid:
            assert channel.is_live or channel.state is ChannelState.CLOSING


TestBrim = Brim.TestCase
TestBrim.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
