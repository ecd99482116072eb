"""People, prices and short ways to a state, for the scripts in this folder."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from dockage.domain.channel import ChannelState, SpendingTx, Terms
from dockage.domain.identity import ChannelId, LeaseId, NodeKey
from dockage.domain.lease import LeaseState
from dockage.domain.offer import Quote
from dockage.domain.pricing import Tariff, ceiling, price
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.domain.statement import GENESIS, Statement, View, digest
from dockage.domain.units import GIB, HOUR, MIB, SECOND, Duration, Instant, Msat, Sat
from dockage.domain.usage import Reading, Usage
from dockage.node import effects as want
from dockage.node import events as told
from dockage.node.policy import ProviderPolicy, TenantPolicy
from dockage.node.table import Table
from dockage.protocol import messages as say
from dockage.testing.playbook import START, Like, Mind, ProviderMind, TenantMind

PROVIDER, TENANT, MALLORY = NodeKey(b"P" * 32), NodeKey(b"T" * 32), NodeKey(b"M" * 32)
OTHER = NodeKey(b"O" * 32)
"""A second provider."""
LEASE, LEASE2 = LeaseId(b"lease-number-one"), LeaseId(b"lease-number-two")
CHANNEL, CHANNEL2 = ChannelId(b"channel-number-1"), ChannelId(b"channel-number-2")
LIMITS = Resources(1000, 512 * MIB, 1 * GIB)
SAT_A_SECOND = Tariff(cpu_hour=3_600_000)
"""One core used for one second costs one satoshi."""
FREE = Tariff()
HEIGHT, EXPIRY = 1000, 3000
CAPACITY = Sat(10_000)
TENANT_KEY, PROVIDER_KEY, SCRIPT = b"\2" * 33, b"\3" * 33, b"\x51\x20" + bytes(32)
TXID, VOUT = "ab" * 32, 1
CLOSE_TX = SpendingTx("cd" * 32, b"close", Sat(204))
REFUND_TX = SpendingTx("ef" * 32, b"refund", Sat(137))
TOGETHER_TX = SpendingTx("bc" * 32, b"together", Sat(154))
NONCE, HALF = b"\2" * 66, b"\5" * 32
ASK = want.ProposeClose(CHANNEL, give_back=True)
"""The tests pay little: less than any close costs."""
ALONE = want.Settle((CHANNEL,))
SIG, SIG64 = b"s" * 64, b"\7" * 64
WHY = Reason("test.reason", "because")

POLICY = ProviderPolicy(
    tariff=SAT_A_SECOND, capacity=Resources(4000, 4 * GIB, 40 * GIB), network="regtest", region="here"
)
FREE_POLICY = ProviderPolicy(tariff=FREE, capacity=Resources(4000, 4 * GIB, 40 * GIB), region="here")


def at(seconds: float) -> Instant:
    return Instant(START + int(seconds * SECOND))


def feed(mind: Mind, *events: Any, now: Instant = START) -> Any:
    for event in events:
        mind.handle(event, now)
    return mind


# -- what is said ------------------------------------------------------------------------------------
def quote(lease: LeaseId = LEASE, *, now: Instant = START, **changes: Any) -> Quote:
    fields: dict[str, Any] = {
        "lease": lease,
        "tenant": TENANT,
        "limits": LIMITS,
        "tariff": SAT_A_SECOND,
        "network": "regtest",
        "confirmations": 1,
        "credit_sat": Sat(0),
        "expires": Instant(now + 60 * SECOND),
    }
    return Quote(**{**fields, **changes})


def free_quote(lease: LeaseId = LEASE, **changes: Any) -> Quote:
    return quote(lease, **{"tariff": FREE, "network": "", **changes})


def proposal(channel: ChannelId = CHANNEL, **changes: Any) -> say.ProposeChannel:
    fields: dict[str, Any] = {
        "channel": channel,
        "tenant_key": TENANT_KEY,
        "expiry_height": EXPIRY,
        "capacity": CAPACITY,
        "tenant_script": SCRIPT,
    }
    return say.ProposeChannel(**{**fields, **changes})


def terms(**changes: Any) -> Terms:
    fields: dict[str, Any] = {
        "tenant_key": TENANT_KEY,
        "provider_key": PROVIDER_KEY,
        "expiry_height": EXPIRY,
        "capacity": CAPACITY,
        "tenant_script": SCRIPT,
    }
    return Terms(**{**fields, **changes})


def notice(
    state: LeaseState,
    *,
    lease: LeaseId = LEASE,
    limits: Resources = LIMITS,
    reason: Any = None,
    now: Any = START,
) -> say.LeaseNotice:
    return say.LeaseNotice(lease, state, limits, now, reason)


def told_of(lease: LeaseId, state: LeaseState, to: NodeKey = TENANT, **more: Any) -> Like:
    return Like(want.Send, to=to, message=Like(say.LeaseNotice, lease=lease, state=state, **more))


def told_of_channel(state: ChannelState, channel: ChannelId = CHANNEL, **more: Any) -> Like:
    return Like(want.Send, to=TENANT, message=Like(say.ChannelNotice, channel=channel, state=state, **more))


def refusal(about: bytes, code: str, to: NodeKey = TENANT) -> Like:
    return Like(want.Send, to=to, message=Like(say.Refusal, about=about, reason=Like(Reason, code=code)))


def billed(lease: LeaseId = LEASE, **more: Any) -> Like:
    return Like(want.Send, to=TENANT, message=Like(Statement, lease=lease, **more))


def says(message: say.AnyMessage, peer: NodeKey = TENANT, **more: Any) -> told.Received:
    return told.Received(peer, message, **more)


def pays(amount: int, channel: ChannelId = CHANNEL, peer: NodeKey = TENANT) -> told.Received:
    return says(say.Payment(channel, Sat(amount), SIG64), peer)


# -- the provider's world ----------------------------------------------------------------------------
def reading(seconds: float, cpu: float = 0.0, **more: Any) -> Reading:
    fields: dict[str, Any] = {
        "boottime_ns": int((1000 + seconds) * SECOND),
        "boot": "boot-1",
        "run": "run-1",
        "cpu_ns": int(cpu * SECOND),
        "memory_bytes": 100 * MIB,
        "disk_bytes": 10 * MIB,
        "containers": 1,
    }
    return Reading(**{**fields, **more})


def reads(seconds: float, cpu: float, lease: LeaseId = LEASE, *, final: bool = False) -> told.MeterRead:
    return told.MeterRead(lease, reading(seconds, cpu), final=final)


def provider(policy: ProviderPolicy = POLICY) -> ProviderMind:
    return feed(ProviderMind(policy), told.BlockSeen(HEIGHT))


def channelled(policy: ProviderPolicy = POLICY, *, confirmations: int = 1) -> ProviderMind:
    """A provider with a funded channel to the tenant."""
    mind = feed(
        provider(policy),
        says(proposal(), our_key=PROVIDER_KEY),
        says(say.AnnounceFunding(CHANNEL, TXID, VOUT)),
    )
    return feed(mind, told.FundingSeen(CHANNEL, confirmations)) if confirmations else mind


def serving(policy: ProviderPolicy = POLICY, **how: Any) -> ProviderMind:
    """The same, and a lease that has just begun to run (its meter was read at second 0)."""
    return feed(
        channelled(policy, **how),
        says(say.OpenLease(quote(), SIG64)),
        told.HostPrepared(LEASE),
        reads(0, 0),
    )


def serving_free() -> ProviderMind:
    return feed(
        provider(FREE_POLICY), says(say.OpenLease(free_quote(), SIG64)), told.HostPrepared(LEASE), reads(0, 0)
    )


# -- the tenant's world ------------------------------------------------------------------------------
def plan(channel: ChannelId = CHANNEL) -> told.ChannelPlan:
    return told.ChannelPlan(channel, TENANT_KEY, SCRIPT, CAPACITY, EXPIRY)


def candidate(
    provider: NodeKey = PROVIDER, channel: ChannelId = CHANNEL, tariff: Tariff = SAT_A_SECOND
) -> told.Candidate:
    return told.Candidate(provider, ceiling(LIMITS, tariff, HOUR), plan(channel), tariff)


def free_candidate(provider: NodeKey = PROVIDER) -> told.Candidate:
    return told.Candidate(provider, Msat(0), None, FREE)


def rents(*candidates: told.Candidate, lease: LeaseId = LEASE) -> told.RentRequested:
    return told.RentRequested(lease, "web", LIMITS, candidates or (candidate(),))


def from_provider(message: say.AnyMessage, peer: NodeKey = PROVIDER, **more: Any) -> told.Received:
    return told.Received(peer, message, SIG64, **more)


def tenant(policy: TenantPolicy | None = None) -> TenantMind:
    return feed(TenantMind(TENANT, policy), told.BlockSeen(HEIGHT))


def quoted(*candidates: told.Candidate) -> TenantMind:
    """A tenant that has a quote and proposed a channel."""
    return feed(tenant(), rents(*candidates), from_provider(quote()))


def funded(*candidates: told.Candidate) -> TenantMind:
    return feed(
        quoted(*candidates),
        from_provider(say.AcceptChannel(CHANNEL, PROVIDER_KEY, 1)),
        told.FundingBuilt(CHANNEL, TXID, VOUT, b"funding", Sat(154)),
    )


def opening(*candidates: told.Candidate) -> TenantMind:
    return feed(funded(*candidates), told.FundingSeen(CHANNEL, 1))


def renting(*candidates: told.Candidate) -> TenantMind:
    return feed(opening(*candidates), from_provider(notice(LeaseState.RUNNING)))


def renting_free() -> TenantMind:
    return feed(
        tenant(),
        rents(free_candidate()),
        from_provider(free_quote()),
        from_provider(notice(LeaseState.RUNNING)),
    )


def statement(seq: int = 1, cpu: float = 1.0, last: Statement | None = None, **changes: Any) -> Statement:
    by = changes.pop("by", quote(changes.get("lease", LEASE)))
    usage = changes.pop("usage", Usage(cpu_ns=int(cpu * SECOND)))
    fields: dict[str, Any] = {
        "lease": LEASE,
        "seq": seq,
        "previous": digest(last) if last else GENESIS,
        "at": at(seq),
        "usage": usage,
        "terms": digest(by),
        "due": price(usage, by.tariff),
        "received_sat": Sat(0),
        "memory_bytes": 0,
        "disk_bytes": 0,
        "containers": 1,
    }
    return Statement(**{**fields, **changes})


def states(statement: Statement, peer: NodeKey = PROVIDER, sent: int = 0, received: int = 0) -> told.Received:
    return from_provider(statement, peer, view=View(sent, received, Duration(0)))


def changed(mind: Any, **fields: Any) -> Any:
    """Mappings of records, as a test writes them down, become tables."""
    tables = {name: Table(value.values()) for name, value in fields.items() if isinstance(value, dict)}
    mind.state = replace(mind.state, **(fields | tables))
    return mind


__all__ = [name for name in dir() if not name.startswith("_") and name != "annotations"]
