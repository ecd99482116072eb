"""What must hold over a whole world, and never may: each function raises ``Broken`` with the fact.

The one rule: they look at both sides and at the truth (coins on the chain, containers on the machines), never at
what one mind believes alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from dockage.domain.channel import Channel, ChannelState
from dockage.domain.lease import LeaseState
from dockage.domain.pricing import ceiling
from dockage.domain.statement import possible
from dockage.domain.units import MINUTE, SECOND, Duration, Msat, Sat
from dockage.domain.usage import Usage
from dockage.node.ledger import Account
from dockage.node.provider import Provider, SoldLease
from dockage.node.tenant import RentedLease, Tenant

from .network import CALM
from .node import Node
from .town import Town


class Broken(AssertionError):
    """The world is not as it must be. The message begins with the seed: that is all one needs to see it again."""


def need(town: Town, true: object, fact: str) -> None:
    if not true:
        raise Broken(f"seed={town.world.seed} after {town.world.elapsed / SECOND:.0f} s: {fact}")


def providers(town: Town) -> Iterator[tuple[Node, Provider]]:
    return ((node, node.provider) for node in town.nodes.values() if node.provider is not None)


def tenants(town: Town) -> Iterator[tuple[Node, Tenant]]:
    return ((node, node.tenant) for node in town.nodes.values() if node.tenant is not None)


def is_honest(node: Node) -> bool:
    return type(node) is Node


# -- at any moment -----------------------------------------------------------------------------------
def always(town: Town) -> None:
    money_is_conserved(town)
    nobody_is_unpaid_beyond_the_limit(town)
    nobody_signed_more_than_was_agreed(town)
    nobody_sells_what_it_has_not(town)
    no_honest_provider_is_condemned(town)


def no_honest_provider_is_condemned(town: Town) -> None:
    """Whatever its machine, the weather and the tenants' load do."""
    for node, state in tenants(town):
        for lease in state.leases.values():
            provider = town.nodes.get(lease.provider)
            if provider is not None and is_honest(provider):
                need(town, not lease.breaches, f"{node} accuses {provider}: {lease.breaches}")
                by_look = lease.dispute is not None and lease.dispute.code.startswith("meter.")
                need(town, not by_look, f"{node} disputes the bills of {provider}: {lease.dispute}")


def money_is_conserved(town: Town) -> None:
    chain = town.chain
    need(town, chain.total + chain.fees == chain.minted, "satoshis came or went")


def nobody_is_unpaid_beyond_the_limit(town: Town) -> None:
    """Also by tenants that never pay. While a reorganisation takes a funding back its payments don't count."""
    for node, state in providers(town):
        if not node.alive:
            continue
        for tenant, account in state.accounts.items():
            shaken = any(
                c.peer == tenant and c.paid and c.state in (ChannelState.FUNDED, ChannelState.ABANDONED)
                for c in state.channels.values()
            )
            limit = _limit(town, node, state, [x for x in state.leases.values() if x.tenant == tenant])
            need(town, shaken or account.unpaid <= limit, _debt(node, account, limit))


def _limit(town: Town, node: Node, state: Provider, leases: list[SoldLease]) -> Msat:
    """The exposure, the ticks before an unpaid one is seen to be late, the frozen time; and for each crash the
    time that nobody was there to freeze."""
    policy = state.policy
    frozen = Duration(policy.grace + policy.patience + 3 * town.plan.meter + MINUTE)
    down = Duration(node.lives * (town.plan.down_most + policy.patience + 3 * town.plan.meter))
    total = sum(
        policy.exposure(x.limits, x.tariff) + ceiling(x.limits, x.tariff, Duration(frozen + down))
        for x in leases
    )
    return Msat(total + 1000)


def _debt(node: Node, account: Account, limit: Msat) -> str:
    return f"{node} is owed {account.unpaid} msat, more than the limit of {limit}"


def nobody_signed_more_than_was_agreed(town: Town) -> None:
    for node, state in tenants(town):
        if not node.alive:
            continue
        by_provider: dict[bytes, int] = {}
        for channel in state.channels.values():
            need(town, channel.paid <= channel.terms.spendable, f"{channel} is overdrawn")
            by_provider[channel.peer] = by_provider.get(channel.peer, 0) + channel.paid * 1000
        for provider, paid in by_provider.items():
            due = sum(x.due for x in state.leases.values() if x.provider == provider)
            gone = any(
                c.peer == provider and c.state is ChannelState.ABANDONED for c in state.channels.values()
            )
            need(town, gone or paid <= due, f"{node} signed {paid} msat for a due of {due}")


def nobody_sells_what_it_has_not(town: Town) -> None:
    for node, state in providers(town):
        held = [x for x in state.leases.values() if x.state is not LeaseState.ENDED]
        total = sum(x.limits.reserved.cpu_milli for x in held)
        need(town, total <= state.policy.capacity.cpu_milli, f"{node} sold {total} milli-cores")


# -- what was paid is what was used --------------------------------------------------------------------
def bills_are_true(town: Town) -> None:
    """Every agreed statement of an honest provider is covered by what its machine really did."""
    for node, state in tenants(town):
        for lease in state.leases.values():
            provider = town.nodes.get(lease.provider)
            if lease.last is None or provider is None or not is_honest(provider):
                continue
            truth = provider.host.history[lease.id]
            slack = _slack(town, lease)
            stated = lease.last.usage
            need(
                town,
                (truth + slack).covers(stated),
                f"{node} agreed to {stated} on {provider}; its machine did {truth}",
            )


def _slack(town: Town, lease: RentedLease) -> Usage:
    """A gauge is integrated from its newest sample, so a growth is seen one reading early: gauges only."""
    grown = possible(lease.most, town.plan.meter)
    return Usage(
        memory_mib_ms=grown.memory_mib_ms,
        disk_mib_ms=grown.disk_mib_ms,
        cpu_reserved_ns=grown.cpu_reserved_ns,
        memory_reserved_mib_ms=grown.memory_reserved_mib_ms,
    )


def both_sides_agree(town: Town) -> None:
    """After the end: what one signed is what the other holds. Where crashes and cuts came between the last bill and
    the close, the other may hold a little less; never more."""
    for node, state in tenants(town):
        for channel in state.channels.values():
            provider = town.nodes.get(channel.peer)
            if (
                provider is None
                or provider.provider is None
                or not is_honest(provider)
                or not is_honest(node)
            ):
                continue
            there = provider.provider.channels.get(channel.id)
            paid = there.paid if there else 0
            fact = f"{node} signed {channel.paid} sat, {provider} holds {paid}"
            need(town, paid <= channel.paid, fact)
            sold = [x for x in state.leases.values() if x.provider == channel.peer]
            need(town, channel.paid - paid <= _risk(town, sold), fact)


def _risk(town: Town, leases: list[RentedLease]) -> int:
    """Satoshis that can be on their way when a channel closes; none in peace."""
    if town.plan.weather == CALM and not town.plan.crashes_per_hour:
        return 0
    span = Duration(10 * town.plan.meter + 2 * town.plan.down_most)
    return sum(ceiling(x.most, x.tariff, span) for x in leases) // 1000 + 1


# -- at the end --------------------------------------------------------------------------------------
def nothing_is_left(town: Town) -> None:
    for node, state in tenants(town):
        for lease in state.leases.values():
            need(town, lease.is_over, f"{node} still has {lease}")
        for channel in state.channels.values():
            need(town, channel.is_over, f"{node} still has {channel}: {channel.reason}")
    for node, selling in providers(town):
        need(town, not node.host.rooms, f"{node} still has {len(node.host.rooms)} leases on its machine")
        for sold in selling.leases.values():
            need(town, sold.is_over, f"{node} still has {sold}")
        for channel in selling.channels.values():
            need(town, channel.is_over, f"{node} still has {channel}: {channel.reason}")


def every_satoshi_arrived(town: Town) -> None:
    """Wallets hold what channels paid or gave back, less the fees that their owner chose."""
    for node, state in providers(town):
        settled = _income(state)
        balance = town.chain.balance(node.name)
        need(town, balance == settled, f"{node} has {balance} sat and settled {settled}")
    for node, renting in tenants(town):
        spent = sum(_cost(town, channel) for channel in renting.channels.values())
        minted = town.minted.get(node.name, 0)
        balance = town.chain.balance(node.name)
        need(
            town,
            balance == minted - spent,
            f"{node} has {balance} sat of {minted}, its channels cost {spent}",
        )


def _income(state: Provider) -> int:
    """One fee for each close, however many channels it closed; the tenant bore that of what was given back."""
    settled = [(c, tx) for c in state.channels.values() for tx in c.spending if tx.txid == c.settled_txid]
    earned = [(c, tx) for c, tx in settled if not tx.given_back]
    return sum(c.paid for c, _ in earned) - sum({tx.txid: tx.fee for _, tx in earned}.values())


def _cost(town: Town, channel: Channel) -> Sat:
    """What the close took is what the provider held; ``both_sides_agree`` bounds the difference to what we signed."""
    if channel.state is ChannelState.ABANDONED:
        return Sat(0)
    there = town.nodes[channel.peer].provider
    other = there.channels.get(channel.id) if there else channel
    if other is None:  # a provider forgets what it gave up, if nothing was ever paid on it
        need(town, not channel.paid, f"a provider has forgotten {channel}")
        other = channel
    closes = {tx.txid: tx for tx in (*other.spending, *channel.spending)}
    by = closes.get(channel.settled_txid)
    refunded = by is not None and (by.given_back or by in channel.spending)
    return Sat(channel.funding_fee + (by.fee if by and refunded else other.paid))


def the_good_happened(town: Town, *, at_first: Duration, share: float) -> None:
    """A paid lease runs: soon after it was wished for, and most of the time after that."""
    users = [user for user in town.users if is_honest(user.node)]
    late = [u for u in users if u.first_ran is None or u.first_ran - u.begin > town.world_start + at_first]
    need(town, len(late) <= len(users) // 20, f"{len(late)} of {len(users)} users waited too long")
    checks, ran = sum(u.checks for u in users), sum(u.ran_checks for u in users)
    need(town, ran >= share * checks, f"leases ran at {ran} of {checks} checks")


def at_the_end(town: Town) -> None:
    always(town)
    bills_are_true(town)
    both_sides_agree(town)
    nothing_is_left(town)
    every_satoshi_arrived(town)
