"""What the two sides are willing to risk: one frozen record each, its fields documented as in the manual."""

from __future__ import annotations

import msgspec

from dockage.domain.identity import NodeKey
from dockage.domain.offer import Ingress, Offer
from dockage.domain.pricing import Tariff, ceiling, price
from dockage.domain.resources import Resources
from dockage.domain.units import HOUR, MIB, MINUTE, SECOND, Duration, Msat, Sat
from dockage.domain.usage import GAP_MAX, Usage

FREE = Tariff()


class ProviderPolicy(msgspec.Struct, frozen=True):
    tariff: Tariff
    capacity: Resources
    """How much of the machine is for sale."""
    region: str = "local"
    architecture: str = "x86_64"
    network: str = ""
    """The bitcoin network of our wallet; "" sells only for free."""
    only_for: tuple[NodeKey, ...] = ()
    free_for: tuple[NodeKey, ...] = ()
    """Who pays nothing."""
    blocked: frozenset[NodeKey] = frozenset()
    own: frozenset[NodeKey] = frozenset()
    """Our user's other machines: they may always rent, pay nothing, and are named in no offer."""
    only_own: bool = False
    """Nobody else may rent, and the offer is shown to nobody else."""
    min_msat_hour: Msat = Msat(0)
    """No lease is sold whose worst case is less than this; who pays nothing is served all the same."""
    credit_sat: Sat = Sat(0)
    """Served to a stranger on unconfirmed funding: what a double spend can cost us."""
    credit_max_sat: Sat = Sat(1_000)
    """The same, to a tenant with a history: grows to this by a tenth of what it has paid and the chain has buried."""
    credit_total_sat: Sat = Sat(10_000)
    """The same, over all tenants at once."""
    setup_sat: Sat = Sat(0)
    """What the funding of a channel also pays us: a light client cannot see the channel otherwise."""
    ingress: Ingress | None = None
    """Set on a gateway."""
    relay_port: int = 0
    """Set on a relay that is paid."""
    patience: Duration = Duration(5 * SECOND)
    """How long a tick may stay unpaid before the containers are frozen."""
    grace: Duration = Duration(60 * SECOND)
    """How long frozen containers are held before the lease ends."""
    fund_within: Duration = Duration(6 * HOUR)
    """How long room is kept for a tenant whose funding waits for confirmations."""
    cooperate_within: Duration = Duration(5 * SECOND)
    """How long a tenant's half of a close is waited for before we close alone."""
    prepare_within: Duration = Duration(2 * MINUTE)
    """Before a lease that our machine can't get ready ends."""
    remember: Duration = Duration(1 * HOUR)
    """How long an ended and paid lease stays in memory (it stays in the journal for ever)."""
    gap_max: Duration = GAP_MAX
    """A longer time between two readings is not charged for memory and disk."""
    quote_life: Duration = Duration(60 * SECOND)
    last_call: Duration = Duration(5 * MINUTE)
    """Nothing is sold so shortly before the selling hours end: the images alone take a while to come."""
    remind_every: Duration = Duration(10 * SECOND)
    """Between two words to a tenant about the coming end of its lease."""
    tick: Duration = Duration(1 * SECOND)
    """Time between two statements."""
    leases_per_tenant: int = 64
    remembered_per_tenant: int = 256
    """Ended ones among them: opening and ending for fun must not fill our memory."""
    channels_per_tenant: int = 4
    """Not yet funded ones: each costs us a row."""
    channels_waiting: int = 1000
    """The same over all tenants: keys cost nothing. Who has paid before is not kept out by it."""
    given_up_per_tenant: int = 16
    """Channels in two days that were agreed on and given up before anything was paid: each leaves a row."""
    given_up: int = 1000
    """The same over all tenants."""
    smallest_channel: Sat = Sat(3_000)
    largest_channel: Sat = Sat(50_000_000)
    longest_channel_blocks: int = 25_000
    """About half a year: longer locks the tenant's coins up if we vanish."""

    def confirmations(self, capacity: Sat) -> int:
        """How deep funding of this size must be (bitcoin.md §5)."""
        return 1 if capacity <= 50_000 else 3 if capacity <= 500_000 else 6

    def serves(self, tenant: NodeKey) -> bool:
        if tenant in self.blocked:
            return False
        return tenant in self.own or (not self.only_own and (not self.only_for or tenant in self.only_for))

    def tariff_for(self, tenant: NodeKey) -> Tariff:
        return FREE if tenant in self.free_for or tenant in self.own else self.tariff

    def is_too_small(self, limits: Resources, tariff: Tariff) -> bool:
        return not tariff.is_free and ceiling(limits, tariff, HOUR) < self.min_msat_hour

    def exposure(self, limits: Resources, tariff: Tariff) -> Msat:
        """The most a lease may owe at any moment: its worst case over the patience, with some traffic."""
        traffic = Usage(net_out_bytes=64 * MIB, net_in_bytes=64 * MIB, internet_out_bytes=64 * MIB)
        return Msat(ceiling(limits, tariff, self.patience) + price(traffic, tariff) + 1000)

    def offer(self, provider: NodeKey, free: Resources) -> Offer:
        return Offer(
            provider=provider,
            free=free,
            tariff=self.tariff,
            region=self.region,
            architecture=self.architecture,
            network="" if self.tariff.is_free else self.network,
            confirmations=self.confirmations(Sat(0)),
            credit_sat=Sat(min(self.credit_sat, self.credit_total_sat)),
            setup_sat=Sat(0) if self.tariff.is_free else self.setup_sat,
            only_for=self.only_for,
            free_for=self.free_for,
            min_msat_hour=Msat(0) if self.tariff.is_free else self.min_msat_hour,
            ingress=self.ingress,
            relay_port=self.relay_port,
        )


class TenantPolicy(msgspec.Struct, frozen=True):
    ask_again: Duration = Duration(2 * SECOND)
    """Between two sendings of an unanswered request."""
    answer_within: Duration = Duration(8 * SECOND)
    """Before the next candidate is asked instead."""
    open_within: Duration = Duration(60 * SECOND)
    """For a provider to prepare a lease, once it is asked to."""
    fund_within: Duration = Duration(6 * HOUR)
    """For a channel's funding to be as deep as the provider wants it."""
    end_within: Duration = Duration(10 * SECOND)
    """Before an unanswered end is an end all the same: we stop paying at once in any case."""
    silence: Duration = Duration(5 * SECOND)
    """Without a statement before we ask what became of the lease."""
    silence_max: Duration = Duration(10 * MINUTE)
    """Without a statement before the lease counts as lost; nothing is paid meanwhile."""
    refill: bool = True
    """Whether a channel that runs dry or nears its expiry gets a successor while leases run on it."""
    refill_again: Duration = Duration(60 * SECOND)
    """Between two tries, where the first one failed."""
    faults_max: int = 3
    """Wrong statements in a row before we leave, where no later one can make it right. None of them is paid."""
    dispute_max: Duration = Duration(30 * SECOND)
    """How long a disagreement that may heal pauses payment before we leave."""
    check_every: Duration = Duration(0)
    """Mean time between two looks at a lease from inside; 0 = none."""
    check_soon: Duration = Duration(7 * SECOND)
    """Within this comes the next one at the beginning, and while something looks wrong."""
    check_limit: Duration = Duration(60 * SECOND)
    """For one look; one that does not come is asked for again after it."""
