"""Hypothesis strategies for everything that crosses a mind's border: domain values, messages, events.

Ids and keys are drawn from small pools, so that events meet each other; amounts and heights also lie at the brim of
the limits. Counterpart: ``protocol/messages.py`` and ``node/events.py``.
"""

from __future__ import annotations

from hypothesis import strategies as st
from msgspec.structs import replace

from dockage.domain.channel import ChannelState, SpendingTx
from dockage.domain.identity import ChannelId, LeaseId, NodeKey
from dockage.domain.lease import LeaseState
from dockage.domain.offer import Quote
from dockage.domain.pricing import Tariff, price
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.domain.statement import GENESIS, Statement, View, digest
from dockage.domain.units import GIB, HOUR, MIB, SECOND, Duration, Instant, Msat, Sat
from dockage.domain.usage import Reading, Usage
from dockage.node import events as told
from dockage.protocol import messages as say

NODES = [NodeKey(bytes([n]) * 32) for n in range(1, 4)]
LEASES = [LeaseId(bytes([n]) * 16) for n in range(1, 4)]
CHANNELS = [ChannelId(bytes([n]) * 16) for n in range(11, 14)]
TARIFFS = [Tariff(), Tariff(cpu_hour=3_600_000), Tariff(1, 2, 3, 4, 5, 6, 7, 8)]
TXIDS = ["ab" * 32, "cd" * 32, "ef" * 32]
EXPIRY = 3_000
CAPACITY = Sat(10_000)

nodes = st.sampled_from(NODES)
leases = st.sampled_from(LEASES)
channels = st.sampled_from(CHANNELS)
tariffs = st.sampled_from(TARIFFS)
txids = st.sampled_from(TXIDS)
signatures = st.just(b"s" * 64)
amounts = st.one_of(
    st.integers(0, 40),
    st.integers(CAPACITY - 332, CAPACITY + 2),
    st.integers(0, 21_000_000 * 100_000_000),
).map(Sat)
heights = st.one_of(
    st.integers(1_000, 1_010),
    st.sampled_from([EXPIRY - d for d in (432, 289, 288, 287, 145, 144, 143, 1, 0, -1)]),
    st.integers(1, 5_000),
)
instants = st.integers(0, 4 * HOUR).map(Instant)
limits = st.sampled_from(
    [
        Resources(1000, 512 * MIB, 1 * GIB),
        Resources(2000, 512 * MIB, 1 * GIB),
        Resources(),
        Resources(2000, 512 * MIB, 1 * GIB, 1500, 256 * MIB),
        Resources(9000, 1, 1),
    ]
)
reasons = st.sampled_from(
    [
        Reason(code, "drawn")
        for code in (
            "lease.unknown",
            "channel.unknown",
            "channel.unconfirmed",
            "channel.none",
            "quote.expired",
            "account.unpaid",
            "provider.full",
        )
    ]
)
TERMS = bytes([9]) * 32
small = st.integers(0, 10**13)
usages = st.builds(Usage, *[small] * 8)
quotes = st.builds(
    Quote, leases, nodes, limits, tariffs, st.sampled_from(["", "regtest"]), st.just(1), amounts, instants
)


@st.composite
def statements(draw: st.DrawFn) -> Statement:
    """Mostly with the arithmetic in order, so that the later checks are reached."""
    usage = draw(st.one_of(usages, st.integers(0, 9 * SECOND).map(lambda n: Usage(cpu_ns=n))))
    tariff = draw(tariffs)
    due = price(usage, tariff)
    return Statement(
        lease=draw(leases),
        seq=draw(st.integers(1, 6)),
        previous=draw(st.sampled_from([GENESIS, bytes([7]) * 32])),
        at=draw(instants),
        usage=usage,
        terms=draw(st.sampled_from([TERMS, digest(draw(quotes))])),
        due=draw(st.sampled_from([due, Msat(due + 1)])),
        received_sat=draw(amounts),
        memory_bytes=draw(small),
        disk_bytes=draw(small),
        containers=draw(st.integers(0, 9)),
    )


nonces = st.sampled_from([bytes([n]) * 66 for n in (2, 3)])
proposals = st.builds(
    say.ProposeChannel,
    channels,
    st.sampled_from([b"\2" * 33, b"\3" * 33]),
    st.one_of(st.just(EXPIRY), heights),
    st.one_of(st.just(CAPACITY), amounts.filter(bool)),
    st.just(b"\x51\x20" + bytes(32)),
)
to_provider = st.one_of(
    st.builds(say.AskQuote, leases, limits),
    st.builds(say.OpenLease, quotes, signatures),
    st.builds(say.GrowLease, leases, limits),
    st.builds(say.AskLease, leases),
    st.builds(say.EndLease, leases),
    proposals,
    st.builds(say.AnnounceFunding, channels, txids, st.integers(0, 2)),
    st.builds(say.Payment, channels, amounts.filter(bool), signatures),
    st.builds(say.ResumeChannel, channels),
    st.builds(say.CloseChannel, channels),
    st.builds(say.AgreeClose, channels, nonces, nonces, st.just(bytes(32))),
    st.builds(say.DeclineClose, channels, nonces, reasons),
)
to_tenant = st.one_of(
    st.builds(say.Refusal, st.one_of(leases, channels), reasons),
    st.builds(say.AcceptChannel, channels, st.sampled_from([b"\2" * 33, b"\3" * 33]), st.integers(0, 6)),
    st.builds(
        say.ChannelNotice,
        channels,
        st.sampled_from(ChannelState),
        st.integers(0, 9),
        amounts,
        signatures,
        txids,
        st.one_of(st.none(), reasons),
    ),
    st.builds(
        say.ProposeClose,
        channels,
        amounts,
        st.just(b"\x51\x20" + bytes(32)),
        st.sampled_from([1000, 50_000]),
        nonces,
    ),
    st.builds(
        say.LeaseNotice,
        leases,
        st.sampled_from(LeaseState),
        limits,
        instants,
        st.one_of(st.none(), reasons),
    ),
    st.builds(say.LeaseEnding, leases, instants, instants, reasons),
    quotes,
    statements(),
)
messages = st.one_of(to_provider, to_tenant)
views = st.builds(View, small, small, st.integers(0, HOUR).map(Duration))
received = st.builds(
    told.Received,
    nodes,
    messages,
    signatures,
    st.one_of(st.none(), views),
    st.just(b"\3" * 33),
    st.booleans(),
)
readings = st.builds(
    Reading,
    st.integers(0, 20 * SECOND),
    st.sampled_from(["boot-1", "boot-2"]),
    st.sampled_from(["run-1", "run-2"]),
    st.integers(0, 100 * SECOND),
    st.integers(0, GIB),
    st.integers(0, GIB),
    small,
    small,
    small,
    st.integers(0, 9),
    st.integers(0, 22 * SECOND),
)
spends = st.builds(SpendingTx, txids, st.binary(max_size=4), amounts)
fundings = st.builds(told.FundingBuilt, channels, txids, st.integers(0, 2), st.just(b"raw"), amounts)
plans = st.builds(
    told.ChannelPlan,
    channels,
    st.just(b"\2" * 33),
    st.just(b"\x51\x20" + bytes(32)),
    st.just(CAPACITY),
    st.just(EXPIRY),
)
candidates = st.builds(
    told.Candidate,
    nodes,
    st.sampled_from([Msat(0), Msat(10**12)]),
    st.one_of(st.none(), plans),
    st.one_of(st.none(), tariffs),
)
events: st.SearchStrategy[told.AnyEvent] = st.one_of(
    received,
    received,
    st.builds(told.HostPrepared, leases, st.one_of(st.none(), readings)),
    st.builds(told.HostFailed, leases, reasons),
    st.builds(told.MeterRead, leases, readings, st.booleans()),
    st.builds(told.HostCleared, leases),
    st.builds(told.BlockSeen, heights),
    fundings,
    st.builds(lambda one, also: replace(one, also=tuple(also)), fundings, st.lists(fundings, max_size=2)),
    st.builds(told.FundingFailed, channels, reasons),
    st.builds(told.FundingSeen, channels, st.integers(0, 9)),
    st.builds(told.FundingMissed, channels),
    st.builds(told.FundingGone, channels, reasons),
    st.builds(told.SpendBuilt, channels, spends, st.lists(channels, max_size=2).map(tuple)),
    st.builds(told.CloseAgreed, channels, amounts, spends),
    st.builds(told.CoSigned, channels, txids),
    st.builds(told.SpendFailed, channels, reasons),
    st.builds(told.SpendSeen, channels, txids, st.integers(0, 9)),
    st.builds(
        told.RentRequested, leases, st.just("web"), limits, st.lists(candidates, max_size=3).map(tuple)
    ),
    st.builds(told.GrowRequested, leases, limits),
    st.builds(told.Renamed, leases, st.just("shop")),
    st.builds(told.EndRequested, leases, reasons),
    st.builds(told.CloseRequested, channels),
    st.just(told.Ticked()),
    st.just(told.Ticked()),
)
