"""Whatever a mind is told, in whatever order: it answers or refuses, and the money adds up."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dockage.domain import channel as channels
from dockage.domain import lease as leases
from dockage.domain.errors import PeerError
from dockage.domain.lease import LeaseState
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, SECOND, Instant, Sat, whole_sat
from dockage.node import effects as want
from dockage.node import provider as selling
from dockage.node import tenant as renting
from dockage.node.ledger import signed
from dockage.node.policy import ProviderPolicy, TenantPolicy
from dockage.node.provider import Provider
from dockage.node.tenant import Tenant
from dockage.testing import strategies as draws

START = 1_000 * SECOND
POLICIES = [
    ProviderPolicy(draws.TARIFFS[1], Resources(4000, 4 * GIB, 4 * GIB), network="regtest"),
    ProviderPolicy(
        draws.TARIFFS[1],
        Resources(2000, 4 * GIB, 4 * GIB),
        network="regtest",
        credit_sat=Sat(500_000),
        credit_total_sat=Sat(600_000),
        leases_per_tenant=1,
        channels_per_tenant=1,
    ),
    ProviderPolicy(draws.TARIFFS[0], Resources(4000, 4 * GIB, 4 * GIB)),
]
histories = st.lists(st.tuples(draws.events, st.integers(0, 100 * SECOND)), max_size=40)
lots = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def run(mind: Any, state: Any, history: Any) -> Any:
    """Yields each step; only PeerError may be raised, and only by a peer's word."""
    now = Instant(START)
    for event, pause in history:
        now = Instant(now + pause)
        try:
            after, effects = mind.step(state, event, now)
        except PeerError:
            assert type(event).__name__ == "Received", f"{event} is no peer's doing"
            continue
        yield state, after, effects
        state = after


def check_moves(before: Any, after: Any) -> None:
    for id_, lease in after.leases.items():
        old = before.leases.get(id_)
        if old is not None and old.state is not lease.state:
            assert reaches(leases.TRANSITIONS, old.state, lease.state), (old, lease)
    for id_, channel in after.channels.items():
        old = before.channels.get(id_)
        assert 0 <= channel.paid <= max(0, channel.terms.spendable)
        if old is None:
            continue
        assert channel.paid >= old.paid, "a payment was taken back"
        assert channel.terms == old.terms or not old.terms.provider_key, "the terms changed"
        if old.state is not channel.state:
            assert reaches(channels.TRANSITIONS, old.state, channel.state), (old, channel)


def reaches(table: Any, one: Any, other: Any, steps: int = 2) -> bool:
    """One step may make two moves (opened frozen, seen spent and buried)."""
    return other in table[one] or (steps > 1 and any(reaches(table, x, other, steps - 1) for x in table[one]))


@lots
@given(st.sampled_from(POLICIES), histories)
def test_a_provider_keeps_its_books_whatever_it_is_told(policy: ProviderPolicy, history: Any) -> None:
    for before, after, effects in run(selling, Provider(policy), history):
        check_moves(before, after)
        held = [x.limits.cpu_milli for x in after.leases.values() if x.state is not LeaseState.ENDED]
        assert sum(held) <= policy.capacity.cpu_milli
        for tenant, account in after.accounts.items():
            firm, loose = signed(after.channels.values(), tenant)
            assert (account.paid, account.loose) == (firm + account.credited, loose)
            assert account.credited <= min(loose, max(policy.credit_sat, policy.credit_max_sat))
            assert account.due >= sum(x.due for x in after.leases.values() if x.tenant == tenant)
        assert sum(account.credited for account in after.accounts.values()) <= policy.credit_total_sat
        for effect in effects:
            assert not isinstance(effect, want.Pay | want.Fund | want.CoSign | want.Refund)
            if isinstance(effect, want.Settle):
                assert all(after.channels[id_].paid > 0 for id_ in effect.channels)
            if isinstance(effect, want.ProposeClose):
                closing = after.channels[effect.channel]
                assert closing.asked_until
                assert not closing.settled_txid
        selling.outstanding(after)
        assert selling.offer(after, draws.NODES[0]).is_sane


@lots
@given(histories)
def test_a_tenant_signs_only_for_what_it_agreed_to_whatever_it_is_told(history: Any) -> None:
    for before, after, effects in run(renting, Tenant(draws.NODES[0], TenantPolicy()), history):
        check_moves(before, after)
        for provider in draws.NODES:
            account = renting.account(after, provider)
            ours = sum(
                c.paid
                for c in after.channels.values()
                if c.peer == provider and c.state is not channels.ChannelState.ABANDONED
            )
            grown = ours > sum(c.paid for c in before.channels.values() if c.peer == provider)
            assert not grown or ours <= whole_sat(account.due) or _caught_up(before, after, provider)
        for effect in effects:
            assert not isinstance(effect, want.Prepare | want.Pause | want.Thaw | want.Finish)
            assert not isinstance(effect, want.Settle | want.ProposeClose)
            if isinstance(effect, want.CoSign):
                assert effect.proposal.paid <= after.channels[effect.proposal.channel].paid
                assert not after.channels[effect.proposal.channel].is_live
            if isinstance(effect, want.Pay):
                assert effect.paid == after.channels[effect.channel].paid
        renting.outstanding(after)


def _caught_up(before: Tenant, after: Tenant, provider: bytes) -> bool:
    """By our own signature, which the edge has verified: no statement is agreed to by that."""
    return {x.id: x.last for x in before.leases.values()} == {x.id: x.last for x in after.leases.values()}


@lots
@given(st.sampled_from(POLICIES), histories)
def test_a_restart_at_any_moment_gives_the_same_leases_channels_and_accounts(
    policy: ProviderPolicy, history: Any
) -> None:
    for _, after, _ in run(selling, Provider(policy), history):
        again = selling.restore(policy, after.leases.values(), after.channels.values())
        assert (again.leases, again.channels) == (after.leases, after.channels)
        for tenant, account in again.accounts.items():
            there = after.accounts.get(tenant)
            assert (account.due, account.paid) == ((there.due, there.paid) if there else (0, 0))
