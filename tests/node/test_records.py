"""What was journalled is what comes back."""

from __future__ import annotations

import msgspec
import pytest

from dockage.domain.channel import Channel, ChannelState, SpendingTx, Terms
from dockage.domain.errors import UsageError
from dockage.domain.identity import ChannelId, LeaseId, NodeKey
from dockage.domain.pricing import PRESETS
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.domain.units import Instant, Msat, Sat
from dockage.domain.usage import Meter, Reading, Usage
from dockage.node import records
from dockage.node.events import Candidate
from dockage.node.policy import ProviderPolicy
from dockage.node.provider import Provider, SoldLease
from dockage.node.table import Table
from dockage.node.tenant import RentedLease, Tenant

WHY = Reason("lease.unpaid", "for a test")
SOLD = SoldLease(
    LeaseId(b"l" * 16),
    NodeKey(b"t" * 32),
    Resources(1000, 1 << 30, 1 << 30),
    PRESETS["fair"],
    Instant(5),
    meter=Meter(Usage(cpu_ns=7), Reading(1, "boot", "run", 2, 3, 4)),
    reason=WHY,
)
RENTED = RentedLease(
    LeaseId(b"r" * 16),
    "web",
    Resources(1, 2, 3),
    (Candidate(NodeKey(b"p" * 32), Msat(9)),),
    refusals=((NodeKey(b"q" * 32), WHY),),
)
CHANNEL = Channel(
    ChannelId(b"c" * 16),
    NodeKey(b"t" * 32),
    Terms(b"T" * 33, b"P" * 33, 5000, Sat(9000), b"script"),
    state=ChannelState.CLOSING,
    paid=Sat(1),
    spending=(SpendingTx("00" * 32, b"raw", Sat(200)),),
)


def test_rows_come_back_equal() -> None:
    assert records.decode_sold_lease(records.encode_lease(SOLD)) == SOLD
    assert records.decode_rented_lease(records.encode_lease(RENTED)) == RENTED
    assert records.decode_channel(records.encode_channel(CHANNEL)) == CHANNEL


def test_a_row_of_an_older_version_gets_the_defaults_of_newer_fields() -> None:
    fields = msgspec.msgpack.decode(records.encode_channel(CHANNEL))
    del fields["spending"], fields["reason"]
    fields["forgotten"] = 1
    old = records.decode_channel(msgspec.msgpack.encode(fields))
    assert old.spending == ()
    assert old.paid == CHANNEL.paid


@pytest.mark.parametrize("junk", [b"", b"\xc1", b"\x80", b"\xff" * 20, records.encode_lease(RENTED)[:-1]])
def test_an_unreadable_row_says_so(junk: bytes) -> None:
    for decode in (records.decode_sold_lease, records.decode_rented_lease, records.decode_channel):
        with pytest.raises(UsageError) as caught:
            decode(junk)
        assert caught.value.code == "journal.unreadable"


def test_only_what_a_step_changed_is_written() -> None:
    before = Provider(ProviderPolicy(PRESETS["fair"], Resources()), Table([SOLD]))
    after = Provider(before.policy, before.leases, Table([CHANNEL]))
    assert records.changes(before, before) == []
    assert [(r.kind, r.key) for r in records.changes(before, after)] == [(records.EARNING, CHANNEL.id)]
    assert [r.kind for r in records.changes(None, after)] == [records.SOLD, records.EARNING]
    assert [r.kind for r in records.changes(None, Tenant(NodeKey(b"t" * 32), leases=Table([RENTED])))] == [
        records.RENTED
    ]
