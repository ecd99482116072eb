"""The life of channels on a real node: what our templates are worth is for bitcoind to say."""

from __future__ import annotations

import secrets

import msgspec
import pytest

from bitcoin.life import CURVE, RATE, Life
from bitcoin.node import NodeRefused
from dockage.domain.channel import Terms
from dockage.domain.errors import PeerError, UsageError
from dockage.domain.units import Sat
from dockage.ports.chain import Outpoint
from dockage.protocol.bitcoin.address import encode
from dockage.protocol.bitcoin.channel import Commitment, check_funding
from dockage.protocol.bitcoin.descriptor import descriptor
from dockage.protocol.bitcoin.script import funding
from dockage.protocol.bitcoin.settlement import Settlement, bumped, closing, refund
from dockage.protocol.bitcoin.tx import TxOut, parse


async def test_a_channel_from_funding_to_a_replaced_close(life: Life) -> None:
    (commitment,) = await life.open(await life.terms(b"a", 200_000, 600))
    coin = await life.chain.coin(Outpoint(*commitment.outpoint))
    assert coin is not None
    check_funding(commitment, coin)
    claim = life.pay(b"a", commitment, *range(1000, 100_001, 1000))

    payout = await life.provider.script()
    first = closing([claim], payout, RATE)
    await life.chain.broadcast(first.tx.encode())
    assert await life.chain.coin(Outpoint(*commitment.outpoint)) is None
    second = closing([claim], payout, bumped(RATE))
    await life.chain.broadcast(second.tx.encode())
    assert await life.chain.depth(first.tx.txid) is None
    await life.world.mine(1)

    assert await life.chain.depth(second.tx.txid) == 1
    assert await life.provider.balance() == (100_000 - second.fee, 0)
    assert await life.tenant.balance() == (900_000 - life.funding_fee, 0)
    spender = await life.chain.spender(Outpoint(*commitment.outpoint), 0)
    assert spender is not None
    assert (spender.txid, spender.fee) == (second.tx.txid, second.fee)


async def test_the_whole_channel_can_be_paid_but_for_the_reserve(life: Life) -> None:
    """330 sat of change are relayed; the node refuses 329 (which our own side would never sign)."""
    (commitment,) = await life.open(await life.terms(b"a", 50_000, 600))
    claim = life.pay(b"a", commitment, 49_670)
    payout = await life.provider.script()
    assert life.world.node.allows(closing([claim], payout, 1000).tx.encode()) == ""
    sign = life.tenant_keys.signer("tenant", b"a")
    dusty = claim._replace(paid=Sat(49_671), signature=sign(commitment.digest(49_671)))
    assert "dust" in life.world.node.allows(closing([dusty], payout, 1000).tx.encode())


async def test_a_fee_below_the_relay_minimum_is_refused_and_the_minimum_passes(life: Life) -> None:
    (commitment,) = await life.open(await life.terms(b"a", 50_000, 600))
    claim, payout = life.pay(b"a", commitment, 20_000), await life.provider.script()
    with pytest.raises(UsageError, match="fee") as caught:
        await life.chain.broadcast(closing([claim], payout, 900).tx.encode())
    assert caught.value.code == "chain.refused"
    assert life.world.node.allows(closing([claim], payout, 1000).tx.encode()) == ""


async def test_ten_channels_open_in_one_transaction_and_close_in_one(life: Life) -> None:
    names = [bytes([n]) for n in range(10)]
    commitments = await life.open(*[await life.terms(name, 50_000 + name[0], 600) for name in names])
    claims = [life.pay(name, one, 7_000 + name[0]) for name, one in zip(names, commitments, strict=True)]
    close = closing(claims, await life.provider.script(), RATE)
    await life.chain.broadcast(close.tx.encode())
    assert life.world.node.rpc("getmempoolentry", close.tx.txid)["vsize"] == 1561
    await life.world.mine(1)
    assert len({one.outpoint[0] for one in commitments}) == 1
    assert (life.opened.version, life.opened.vsize) == (2, 541)
    assert await life.provider.balance() == (70_045 - close.fee, 0)
    assert await life.tenant.balance() == (1_000_000 - 70_045 - life.funding_fee, 0)
    assert close.tx.vsize == 1561


async def refundable(life: Life, blocks: int) -> tuple[Commitment, Settlement]:
    (commitment,) = await life.open(await life.terms(b"a", 100_000, blocks))
    back = refund(commitment, await life.tenant.script(), RATE, life.tenant_keys.signer("tenant", b"a"))
    return commitment, back


async def test_a_refund_is_refused_one_block_early_and_taken_at_the_expiry(life: Life) -> None:
    commitment, back = await refundable(life, 8)
    await life.world.mine(commitment.terms.expiry_height - 1 - await life.chain.height())
    with pytest.raises(UsageError, match="non-final"):
        await life.chain.broadcast(back.tx.encode())
    await life.world.mine(1)
    await life.chain.broadcast(back.tx.encode())
    await life.world.mine(1)
    assert await life.chain.depth(back.tx.txid) == 1
    assert await life.tenant.balance() == (1_000_000 - life.funding_fee - back.fee, 0)


async def test_a_refund_cannot_pretend_to_be_late(life: Life) -> None:
    """Without the lock time, or with a final sequence, the script itself refuses."""
    commitment, _ = await refundable(life, 50)
    terms = commitment.terms
    early = Commitment(
        Terms(terms.tenant_key, terms.provider_key, 1, terms.capacity, terms.tenant_script),
        commitment.outpoint,
        CURVE,
    )
    early.funding = commitment.funding
    early.coin = commitment.coin
    back = refund(early, await life.tenant.script(), RATE, life.tenant_keys.signer("tenant", b"a"))
    assert "Locktime requirement not satisfied" in life.world.node.allows(back.tx.encode())


async def test_nobody_else_can_rewrite_a_close(life: Life) -> None:
    (commitment,) = await life.open(await life.terms(b"a", 100_000, 600))
    close = closing([life.pay(b"a", commitment, 40_000)], await life.provider.script(), RATE).tx
    thief = await life.tenant.script()
    stolen = close._replace(outputs=(close.outputs[0], TxOut(close.outputs[1].value, thief)))
    assert "Invalid Schnorr signature" in life.world.node.allows(stolen.encode())
    _, tenant, leaf, control = close.witnesses[0]
    alone = close._replace(witnesses=((bytes(64), tenant, leaf, control),))
    assert "Invalid Schnorr signature" in life.world.node.allows(alone.encode())
    assert life.world.node.allows(close.encode()) == ""


async def test_the_newest_payment_wins_even_over_a_refund_that_waits(life: Life) -> None:
    """After the expiry it is a race of fees; a provider that overslept may still win it, and must not rely on it."""
    (commitment,) = await life.open(await life.terms(b"a", 80_000, 6))
    claim = life.pay(b"a", commitment, 70_000)
    await life.world.mine(6)
    back = refund(commitment, await life.tenant.script(), RATE, life.tenant_keys.signer("tenant", b"a"))
    await life.chain.broadcast(back.tx.encode())
    late = closing([claim], await life.provider.script(), 10 * RATE)
    await life.chain.broadcast(late.tx.encode())
    await life.world.mine(1)
    assert await life.chain.depth(back.tx.txid) is None
    assert await life.provider.balance() == (70_000 - late.fee, 0)


async def test_a_double_spent_funding_leaves_no_coin(life: Life) -> None:
    terms = await life.terms(b"a", 100_000, 600)
    script = funding(terms, CURVE).script
    tx = await life.tenant.fund([(script, terms.capacity)], RATE)
    await life.tenant.forget(tx)
    other = await life.tenant.fund([(await life.tenant.script(), terms.capacity)], 3 * RATE)
    await life.chain.broadcast(tx.raw)
    outpoint = Outpoint(tx.txid, parse(tx.raw).find(script, terms.capacity) or 0)
    coin = await life.chain.coin(outpoint)
    assert coin is not None
    assert coin.confirmations == 0
    await life.chain.broadcast(other.raw)
    assert await life.chain.coin(outpoint) is None
    await life.world.mine(1)
    assert await life.chain.depth(tx.txid) is None
    assert await life.chain.spender(outpoint, 0) is None


async def test_a_funding_of_the_wrong_script_is_refused(life: Life) -> None:
    """The tenant funds a channel that expires sooner than it says."""
    said = await life.terms(b"a", 100_000, 600)
    (made,) = await life.open(await life.terms(b"a", 100_000, 10))
    coin = await life.chain.coin(Outpoint(*made.outpoint))
    assert coin is not None
    with pytest.raises(PeerError) as caught:
        check_funding(Commitment(said, made.outpoint, CURVE), coin)
    assert caught.value.code == "channel.script"


async def test_the_backup_line_alone_gets_the_money_back(life: Life) -> None:
    """Stock bitcoind makes the refund from the descriptor; nothing of ours is used after the line is written."""
    (commitment,) = await life.open(await life.terms(b"a", 100_000, 6))
    wif = life.tenant_keys.wif("tenant", b"a", "regtest")
    line = descriptor(commitment.terms, commitment.funding, wif)
    public = descriptor(commitment.terms, commitment.funding)
    node = life.world.node
    assert node.rpc("getdescriptorinfo", public)["descriptor"] == public
    for height in (999, 1000, 10_000):  # the checksum's last group may have one, two or three characters
        other = msgspec.structs.replace(commitment.terms, expiry_height=height)
        line_of = descriptor(other, commitment.funding)
        assert node.rpc("getdescriptorinfo", line_of)["descriptor"] == line_of
    assert node.rpc("deriveaddresses", public) == [encode(commitment.funding.script, "regtest")]

    name = f"rescue-{secrets.token_hex(6)}"
    node.rpc("createwallet", name, False, True)
    rescue = node.wallet(name)
    (imported,) = rescue.rpc("importdescriptors", [{"desc": line, "timestamp": 0}])
    assert imported["success"]
    await life.world.mine(6)
    home = await life.tenant.receive()
    before = await life.tenant.balance()
    coin = {"txid": commitment.outpoint[0], "vout": commitment.outpoint[1], "sequence": 0xFFFFFFFD}
    options = {"subtractFeeFromOutputs": [0], "fee_rate": 2, "add_inputs": False}
    made = rescue.rpc(
        "walletcreatefundedpsbt", [coin], [{home: "0.00100000"}], commitment.terms.expiry_height, options
    )
    final = node.rpc("finalizepsbt", rescue.rpc("walletprocesspsbt", made["psbt"])["psbt"])
    assert final["complete"]
    await life.chain.broadcast(bytes.fromhex(final["hex"]))
    await life.world.mine(1)
    after = await life.tenant.balance()
    assert after.confirmed - before.confirmed == 100_000 - int(made["fee"] * 10**8)
    with pytest.raises(NodeRefused):
        node.rpc("sendrawtransaction", final["hex"][:-2])
