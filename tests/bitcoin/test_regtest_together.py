"""Closes by both on a real node: sizes, races with the close alone, reorganisations, what version 3 is for."""

from __future__ import annotations

import pytest

from bitcoin.life import RATE, Life
from dockage.domain.errors import UsageError
from dockage.ports.chain import Outpoint
from dockage.protocol.bitcoin.settlement import Settlement, closing, refund, replacing
from dockage.protocol.bitcoin.together import CLOSE_VBYTES
from dockage.protocol.bitcoin.tx import Tx, TxIn, TxOut

CAPACITY = 100_000


def vsize(life: Life, tx: Tx) -> int:
    """As the node counts it."""
    return int(life.world.node.rpc("getmempoolentry", tx.txid)["vsize"])


async def alone(life: Life, claim: object, rate: int) -> Settlement:
    return closing([claim], await life.provider.script(), rate)  # type: ignore[list-item]


async def test_both_close_by_the_key_path_with_154_vbytes(life: Life) -> None:
    (commitment,) = await life.open(await life.terms(b"a", CAPACITY, 600))
    tx = await life.together(b"a", commitment, 30_000)
    await life.chain.broadcast(tx.encode())
    assert vsize(life, tx) == CLOSE_VBYTES
    await life.world.mine(1)
    assert await life.provider.balance() == (30_000 - 2 * CLOSE_VBYTES, 0)
    assert await life.tenant.balance() == (1_000_000 - 30_000 - life.funding_fee, 0)


async def test_what_is_not_worth_a_fee_goes_back_at_once_with_111_vbytes(life: Life) -> None:
    (commitment,) = await life.open(await life.terms(b"a", CAPACITY, 600))
    tx = await life.together(b"a", commitment, 200)
    await life.chain.broadcast(tx.encode())
    assert vsize(life, tx) == 111
    await life.world.mine(1)
    assert await life.provider.balance() == (0, 0)
    assert await life.tenant.balance() == (1_000_000 - life.funding_fee - 222, 0)


async def test_a_close_by_both_can_be_replaced_by_a_dearer_one_and_by_one_alone(life: Life) -> None:
    (commitment,) = await life.open(await life.terms(b"a", CAPACITY, 600))
    claim = life.pay(b"a", commitment, 30_000)
    first = await life.together(b"a", commitment, 30_000, 1000)
    second = await life.together(b"a", commitment, 30_000, replacing(CLOSE_VBYTES, 1500, 154))
    third = await alone(life, claim, 4000)
    for tx in (first, second, third.tx):
        await life.chain.broadcast(tx.encode())
    assert await life.chain.depth(first.txid) is None
    assert await life.chain.depth(second.txid) is None
    assert "insufficient fee" in life.world.node.allows(second.encode())
    await life.world.mine(1)
    assert await life.chain.depth(third.tx.txid) == 1
    assert await life.provider.balance() == (30_000 - third.fee, 0)


async def test_an_older_state_beside_a_close_by_both_only_gives_the_tenant_more(life: Life) -> None:
    (commitment,) = await life.open(await life.terms(b"a", CAPACITY, 600))
    older = life.pay(b"a", commitment, 20_000)
    newest = life.pay(b"a", commitment, 20_000, 30_000)
    await life.chain.broadcast((await life.together(b"a", commitment, newest.paid)).encode())
    rival = await alone(life, older, 5 * RATE)
    await life.chain.broadcast(rival.tx.encode())
    await life.world.mine(1)
    assert await life.chain.depth(rival.tx.txid) == 1
    assert await life.tenant.balance() == (1_000_000 - 20_000 - life.funding_fee, 0)


async def test_of_two_closes_only_one_is_ever_in_the_chain(life: Life) -> None:
    (commitment,) = await life.open(await life.terms(b"a", CAPACITY, 600))
    claim = life.pay(b"a", commitment, 30_000)
    tx = await life.together(b"a", commitment, 30_000)
    await life.chain.broadcast(tx.encode())
    await life.world.mine(1)
    with pytest.raises(UsageError, match="missingorspent"):
        await life.chain.broadcast((await alone(life, claim, 10 * RATE)).tx.encode())


async def test_a_close_by_both_that_a_reorganisation_undid_is_mined_again(life: Life) -> None:
    (commitment,) = await life.open(await life.terms(b"a", CAPACITY, 600))
    tx = await life.together(b"a", commitment, 30_000)
    await life.chain.broadcast(tx.encode())
    await life.world.mine(1)
    await life.world.reorganise(1)
    assert await life.chain.depth(tx.txid) == 0
    assert await life.chain.spender(Outpoint(*commitment.outpoint), 0) is None
    await life.chain.broadcast(tx.encode())
    await life.world.mine(1)
    assert await life.chain.depth(tx.txid) == 1


async def test_after_the_expiry_the_refund_and_a_close_race_and_the_higher_fee_wins(life: Life) -> None:
    """Why a tenant declines then: it could be out of pocket for a close that its refund makes needless."""
    (commitment,) = await life.open(await life.terms(b"a", CAPACITY, 6))
    tx = await life.together(b"a", commitment, 30_000)
    await life.world.mine(6)
    back = refund(commitment, await life.tenant.script(), 3 * RATE, life.tenant_keys.signer("tenant", b"a"))
    await life.chain.broadcast(tx.encode())
    await life.chain.broadcast(back.tx.encode())
    await life.world.mine(1)
    assert await life.chain.depth(back.tx.txid) == 1


# -- version 3 ---------------------------------------------------------------------------------------
async def test_no_close_before_the_funding_is_confirmed(life: Life) -> None:
    """The funding has version 2, so that channels can be opened from unconfirmed change."""
    (commitment,) = await life.open(await life.terms(b"a", CAPACITY, 600), mined=0)
    tx = await life.together(b"a", commitment, 30_000)
    assert "truc" in life.world.node.allows(tx.encode()).lower()
    await life.world.mine(1)
    assert life.world.node.allows(tx.encode()) == ""


async def test_a_second_and_a_third_channel_open_from_unconfirmed_change(life: Life) -> None:
    """A version 3 funding could have one unconfirmed ancestor only."""
    for name in (b"a", b"b", b"c"):
        (commitment,) = await life.open(await life.terms(name, CAPACITY, 600), mined=0)
        assert await life.chain.depth(commitment.outpoint[0]) == 0


async def test_a_large_child_of_the_tenants_change_can_not_pin_a_close(life: Life) -> None:
    (commitment,) = await life.open(await life.terms(b"a", CAPACITY, 600))
    claim = life.pay(b"a", commitment, 30_000)
    first = await alone(life, claim, 1000)
    await life.chain.broadcast(first.tx.encode())
    signed = await _child(life, first.tx, 30)
    assert "truc" in life.world.node.allows(signed).lower()
    await life.chain.broadcast(await _child(life, first.tx, 1))
    second = await alone(life, claim, replacing(first.tx.vsize, 4000, first.fee))
    await life.chain.broadcast(second.tx.encode())
    await life.world.mine(1)
    assert await life.chain.depth(second.tx.txid) == 1


async def _child(life: Life, parent: Tx, outputs: int) -> bytes:
    """The tenant spends its unconfirmed change, at a low rate, into *outputs* outputs."""
    script, value = await life.tenant.script(), parent.outputs[0].value
    each = (value - 200 * outputs) // outputs
    tx = Tx(3, (TxIn(parent.txid, 0),), tuple(TxOut(each, script) for _ in range(outputs)))
    wallet = life.world.node.wallet(life.tenant.name)  # type: ignore[attr-defined]
    return bytes.fromhex(wallet.rpc("signrawtransactionwithwallet", tx.encode().hex())["hex"])
