"""The rail's own promise: what did not confirm is made again so that it can replace itself."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from dockage.adapters.secp.btclib import Secp
from dockage.adapters.secp.keys import ChannelKeys
from dockage.daemon.money import refuse_foreign_channels
from dockage.daemon.rail import Rail
from dockage.domain.channel import Channel, ChannelState, SpendingTx, Terms
from dockage.domain.errors import PeerError, UsageError
from dockage.domain.identity import ChannelId, NodeKey
from dockage.domain.units import Sat
from dockage.node import records
from dockage.ports.chain import Coin
from dockage.ports.machine import Row
from dockage.protocol.bitcoin.tx import parse
from dockage.testing.chain import FakeChain, FakeWallet

ME, PROVIDER = NodeKey(b"t" * 32), NodeKey(b"p" * 32)
ID = ChannelId(b"c" * 16)


def rail(seed: bytes, feerate_max: int = 100_000) -> Rail:
    chain, curve = FakeChain(), Secp()
    return Rail(curve, ChannelKeys(seed, curve), chain, FakeWallet(chain, "w"), feerate_max)


async def paid_channel(feerate_max: int = 100_000) -> tuple[Rail, Rail, Channel]:
    tenant, provider = rail(b"1" * 32, feerate_max), rail(b"2" * 32, feerate_max)
    terms = Terms(
        tenant.our_key("tenant", ID, ME),
        provider.our_key("provider", ID, ME),
        1000,
        Sat(50_000),
        await tenant.wallet.script(),
    )
    channel = Channel(ID, ME, terms, state=ChannelState.OPEN, txid="ab" * 32)
    signature = tenant.pay(channel, Sat(20_000), ME)
    return tenant, provider, replace(channel, paid=Sat(20_000), signature=signature)


def replaces(later: SpendingTx, earlier: SpendingTx) -> bool:
    """BIP125 rules 3 and 4: more in all, and at least the relay rate for its own size on top."""
    return later.fee - earlier.fee >= parse(later.raw).vsize


async def test_a_close_made_again_pays_enough_to_replace_the_one_before() -> None:
    _, provider, channel = await paid_channel()
    first, _ = await provider.settle([channel])
    second, _ = await provider.settle([replace(channel, spending=(first,))])
    third, _ = await provider.settle([replace(channel, spending=(first, second))])
    assert replaces(second, first)
    assert replaces(third, second)


async def test_a_refund_made_again_pays_enough_to_replace_the_one_before() -> None:
    tenant, _, channel = await paid_channel()
    first = await tenant.refund(channel, ME)
    assert replaces(await tenant.refund(replace(channel, spending=(first,)), ME), first)


@pytest.mark.parametrize("what", ["close", "refund"])
async def test_what_waits_for_ever_never_becomes_all_fee(what: str) -> None:
    """A node without peers confirms nothing, whatever is paid."""
    tenant, provider, channel = await paid_channel(feerate_max=20_000)
    made: tuple[SpendingTx, ...] = ()
    refused = ""
    while not refused:
        waiting = replace(channel, spending=made)
        try:
            tx = (
                await tenant.refund(waiting, ME)
                if what == "refund"
                else (await provider.settle([waiting]))[0]
            )
            made = (*made, tx)
        except UsageError as error:
            refused = error.code
    assert refused == "channel.fee-limit"
    assert 3 < len(made) < 12
    assert all(tx.fee <= 20 * parse(tx.raw).vsize for tx in made)


async def test_the_first_close_pays_what_the_chain_asks() -> None:
    _, provider, channel = await paid_channel()
    first, _ = await provider.settle([channel])
    assert first.fee == -(-parse(first.raw).vsize * await provider.chain.feerate(6) // 1000)


def test_a_home_whose_channels_were_opened_with_another_wallet_does_not_start() -> None:
    """Its closes and refunds could not be signed."""
    mine, other = rail(b"1" * 32), rail(b"2" * 32)
    terms = Terms(
        mine.our_key("tenant", ID, ME),
        Secp().pubkey(bytes([9]) * 32),
        900,
        Sat(9_000),
        b"\x51\x20" + bytes(32),
    )
    channel = Channel(ID, NodeKey(bytes(32)), terms, ChannelState.OPEN, "ab" * 32)
    rows = [Row(records.PAYING, ID, records.encode_channel(channel))]
    refuse_foreign_channels(mine, rows, ME)
    with pytest.raises(UsageError) as caught:
        refuse_foreign_channels(other, rows, ME)
    assert caught.value.code == "wallet.other-keys"
    over = replace(channel, state=ChannelState.CLOSED)
    refuse_foreign_channels(other, [Row(records.PAYING, ID, records.encode_channel(over))], ME)


async def test_what_we_paid_a_peer_is_no_payment_of_the_peer() -> None:
    """It opens a channel to us with the id and the funding of the one on which we pay it."""
    us, peer = rail(b"1" * 32), rail(b"2" * 32)
    capacity, script = Sat(50_000), await us.wallet.script()
    terms = Terms(us.our_key("tenant", ID, ME), peer.our_key("provider", ID, ME), 1000, capacity, script)
    ours = Channel(ID, PROVIDER, terms, state=ChannelState.OPEN, txid="ab" * 32)
    signature = us.pay(ours, Sat(20_000), ME)
    copy = Terms(
        peer.our_key("tenant", ID, PROVIDER), us.our_key("provider", ID, PROVIDER), 1000, capacity, script
    )
    theirs = replace(ours, terms=copy)
    with pytest.raises(PeerError) as caught:
        us.check_payment(theirs, Sat(20_000), signature)
    assert caught.value.code == "channel.signature"
    coin = Coin(capacity, us.commitment(ours).funding.script, 1, coinbase=False)
    us.check_funding(ours, coin)
    with pytest.raises(PeerError) as caught:
        us.check_funding(theirs, coin)
    assert caught.value.code == "channel.script"
