"""Every template with any terms, against an independent library: bytes, digests, and its script interpreter.

``btclib`` knows nothing of channels: it gets the leaves as words and the amounts as numbers, and runs what we signed
by all consensus rules. Each signature is made by one binding of secp256k1 and checked by the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
from btclib import policy
from btclib.exceptions import BTClibValueError
from btclib.key import PubKeyData
from btclib.script import engine, script, sig_hash, taproot
from btclib.script.script_pub_key import ScriptPubKey
from btclib.tx.tx import Tx as OracleTx
from btclib.tx.tx_out import TxOut as OracleOut
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bitcoin.parts import CHANGE, Pair
from dockage.adapters.secp import Secp
from dockage.adapters.secp.coincurve import CoincurveSecp
from dockage.domain.channel import Terms
from dockage.domain.errors import UsageError
from dockage.domain.units import Sat
from dockage.protocol.bitcoin.channel import CAPACITY_MIN, HEIGHT_MAX, SUPPLY, Commitment
from dockage.protocol.bitcoin.curve import Curve, Part
from dockage.protocol.bitcoin.script import Leaf, taproot_script
from dockage.protocol.bitcoin.settlement import Claim, closing, refund
from dockage.protocol.bitcoin.sighash import DEFAULT, PAYMENT
from dockage.protocol.bitcoin.together import agreement
from dockage.protocol.bitcoin.tx import Tx, TxOut

BINDINGS: tuple[Curve, Curve] = (Secp(), CoincurveSecp())
secrets = st.integers(1, 2**255).map(lambda n: n.to_bytes(32, "big"))
programs = st.one_of(
    st.binary(min_size=20, max_size=20).map(lambda key: b"\0\x14" + key),
    st.binary(min_size=32, max_size=32).map(lambda key: b"\0\x20" + key),
    st.binary(min_size=32, max_size=32).map(taproot_script),
)
amounts = st.one_of(
    st.integers(CAPACITY_MIN, SUPPLY), st.sampled_from((CAPACITY_MIN, 2**32, SUPPLY)), st.integers(660, 10**6)
)
heights = st.one_of(st.integers(1, HEIGHT_MAX), st.sampled_from((1, 16, 17, 127, 128, 32_768, HEIGHT_MAX)))
txids = st.binary(min_size=32, max_size=32).filter(any).map(bytes.hex)
feerates = st.integers(1000, 100_000)


@dataclass
class Open:
    """One channel, with both secrets and the two bindings in either order."""

    tenant: bytes
    provider: bytes
    terms: Terms
    commitment: Commitment
    signs: Curve
    checks: Curve

    def claim(self, paid: int) -> Claim:
        signature = self.commitment.pay(Sat(paid), partial(self.signs.sign, self.tenant))
        other = Commitment(self.terms, self.commitment.outpoint, self.checks)
        other.check_payment(Sat(paid - 1), Sat(paid), signature)
        return Claim(self.commitment, Sat(paid), signature, partial(self.checks.sign, self.provider))


@st.composite
def opened(draw: st.DrawFn) -> Open:
    tenant, provider = draw(st.lists(secrets, min_size=2, max_size=2, unique=True))
    signs, checks = draw(st.permutations(BINDINGS))
    keys = signs.pubkey(tenant), checks.pubkey(provider)
    terms = Terms(*keys, draw(heights), Sat(draw(amounts)), draw(programs))
    commitment = Commitment(terms, (draw(txids), draw(st.integers(0, 2**32 - 2))), signs)
    return Open(tenant, provider, terms, commitment, signs, checks)


def paid_on(channel: Open, share: float) -> int:
    return max(1, int(channel.terms.spendable * share))


# -- the same, said by the other library ---------------------------------------------------------------
def leaves(terms: Terms) -> list[list[tuple[int, list[str | int]]]]:
    tenant, provider = terms.tenant_key[1:].hex(), terms.provider_key[1:].hex()
    height = terms.expiry_height if terms.expiry_height > 16 else f"OP_{terms.expiry_height}"
    return [
        [(0xC0, [tenant, "OP_CHECKSIGVERIFY", provider, "OP_CHECKSIG"])],
        [(0xC0, [tenant, "OP_CHECKSIGVERIFY", height, "OP_CHECKLOCKTIMEVERIFY"])],
    ]


def told(tx: Tx) -> OracleTx:
    """Through the bytes that would be broadcast."""
    return OracleTx.parse(tx.encode())


def coins(*spent: TxOut) -> list[OracleOut]:
    return [OracleOut(coin.value, ScriptPubKey(coin.script)) for coin in spent]


def digest(tx: Tx, index: int, spent: list[OracleOut], kind: int, leaf: Leaf | None) -> bytes:
    extension = leaf.hash + b"\0\xff\xff\xff\xff" if leaf else b""
    return bytes(sig_hash.taproot(told(tx), index, spent, kind, 1 if leaf else 0, b"", extension))


def runs(tx: Tx, *spent: TxOut) -> None:
    """By all rules of consensus and, for what it spends, of relay; it is a standard transaction, too."""
    engine.verify_transaction(coins(*spent), told(tx))
    assert policy.is_witness_standard(coins(*spent), told(tx))
    assert not policy.dust_outputs(told(tx))


def same_bytes(tx: Tx) -> None:
    other = told(tx)
    assert other.serialize(include_witness=True) == tx.encode()
    assert (other.id.hex(), other.weight, other.vsize) == (tx.txid, tx.weight, tx.vsize)


# -- templates -----------------------------------------------------------------------------------------
@given(opened())
@settings(max_examples=15, deadline=None)
def test_the_funding_output_and_both_proofs(channel: Open) -> None:
    funding, tree = channel.commitment.funding, leaves(channel.terms)
    internal = PubKeyData(b"\2" + funding.internal_key)
    key, _ = taproot.output_pubkey(internal, tree)
    assert funding.script == taproot_script(key)
    for number, leaf in enumerate((funding.close, funding.refund)):
        words, control = taproot.input_script_sig(internal, tree, number)
        assert (leaf.script, leaf.control) == (script.serialize(words), control)
        assert leaf.hash == taproot.leaf_hash(0xC0, leaf.script)
    assert funding == Commitment(channel.terms, channel.commitment.outpoint, channel.checks).funding


@given(opened(), st.floats(0, 1), programs)
@settings(max_examples=15, deadline=None)
def test_the_digest_of_a_payment_leaves_the_rest_to_the_provider(
    channel: Open, share: float, anything: bytes
) -> None:
    commitment, paid = channel.commitment, paid_on(channel, share)
    outputs = (commitment.change(paid), TxOut(paid, anything))
    for tx in (Tx(3, (commitment.input,), outputs[:1]), Tx(3, (commitment.input,), outputs)):
        expected = digest(tx, 0, coins(commitment.coin), PAYMENT, commitment.funding.close)
        assert commitment.digest(paid) == expected


@given(st.lists(opened(), min_size=1, max_size=3), st.floats(0, 1), programs, feerates)
@settings(max_examples=15, deadline=None)
def test_a_close_of_any_channels(batch: list[Open], share: float, payout: bytes, feerate: int) -> None:
    assume(len({channel.commitment.outpoint for channel in batch}) == len(batch))
    claims = [channel.claim(paid_on(channel, share)) for channel in batch]
    try:
        close = closing(claims, payout, feerate)
    except UsageError:
        return
    spent = [channel.commitment.coin for channel in batch]
    assume(sum(coin.value for coin in spent) <= SUPPLY)
    same_bytes(close.tx)
    runs(close.tx, *spent)
    for n, (channel, claim) in enumerate(zip(batch, claims, strict=True)):
        provider, tenant, *_ = close.tx.witnesses[n]
        leaf, all_spent = channel.commitment.funding.close, coins(*spent)
        whole = digest(close.tx, n, all_spent, DEFAULT, leaf)
        assert channel.signs.verify(channel.terms.provider_key[1:], whole, provider)
        # At index n of a batch it is still what the tenant signed at index 0 of its own template.
        assert digest(close.tx, n, all_spent, PAYMENT, leaf) == channel.commitment.digest(claim.paid)
        assert tenant == claim.signature + b"\x83"


@given(opened(), programs, feerates)
@settings(max_examples=15, deadline=None)
def test_a_refund(channel: Open, to: bytes, feerate: int) -> None:
    commitment = channel.commitment
    try:
        back = refund(commitment, to, feerate, partial(channel.signs.sign, channel.tenant))
    except UsageError:
        return
    same_bytes(back.tx)
    runs(back.tx, commitment.coin)
    expected = digest(back.tx, 0, coins(commitment.coin), DEFAULT, commitment.funding.refund)
    assert channel.checks.verify(channel.terms.tenant_key[1:], expected, back.tx.witnesses[0][0])
    assert back.received + back.fee == channel.terms.capacity


@given(opened(), st.floats(0, 1), programs, feerates)
@settings(max_examples=15, deadline=None)
def test_a_close_by_both(channel: Open, share: float, payout: bytes, feerate: int) -> None:
    commitment = channel.commitment
    try:
        agreed = agreement(commitment, Sat(paid_on(channel, share)), payout, feerate)
    except UsageError:
        return
    assert agreed.joint.digest == digest(agreed.tx, 0, coins(commitment.coin), DEFAULT, None)
    one, other = (
        curve.half(secret, agreed.joint)
        for curve, secret in ((channel.signs, channel.tenant), (channel.checks, channel.provider))
    )
    tx = agreed.signed(
        channel.signs,
        Part(channel.terms.tenant_key, one.nonce, one.sign(other.nonce)),
        Part(channel.terms.provider_key, other.nonce, other.sign(one.nonce)),
    )
    same_bytes(tx)
    runs(tx, commitment.coin)
    assert agreed.returned + agreed.received + agreed.fee == channel.terms.capacity


# -- and what must not run -----------------------------------------------------------------------------
Twist = Callable[[Tx], Tx]
TWISTS: dict[str, Twist] = {
    "more to the provider": lambda tx: _paying(tx, -1, +1),
    "less to the provider": lambda tx: _paying(tx, 0, -1),
    "to somebody else": lambda tx: tx._replace(outputs=(tx.outputs[0], tx.outputs[1]._replace(script=CHANGE))),
    "outputs exchanged": lambda tx: tx._replace(outputs=tx.outputs[::-1]),
    "without the tenant's output": lambda tx: tx._replace(outputs=tx.outputs[1:]),
    "another version": lambda tx: tx._replace(version=2),
    "a lock time": lambda tx: tx._replace(locktime=1),
    "a final sequence": lambda tx: tx._replace(inputs=(tx.inputs[0]._replace(sequence=0xFFFFFFFF),)),
    "signatures exchanged": lambda tx: _stack(tx, 1, 0, 2, 3),
    "the provider alone": lambda tx: _stack(tx, 0, 0, 2, 3),
    "without a signature": lambda tx: _stack(tx, 1, 2, 3),
    "a longer signature": lambda tx: tx._replace(
        witnesses=((tx.witnesses[0][0] + b"\0", *tx.witnesses[0][1:]),)
    ),
}  # fmt: skip


def _paying(tx: Tx, change: int, payout: int) -> Tx:
    one, other = tx.outputs
    return tx._replace(
        outputs=(TxOut(one.value + change, one.script), TxOut(other.value + payout, other.script))
    )


def _stack(tx: Tx, *order: int) -> Tx:
    return tx._replace(witnesses=(tuple(tx.witnesses[0][n] for n in order),))


FIXED = Pair()


@pytest.mark.parametrize("twist", TWISTS.values(), ids=TWISTS)
def test_a_close_that_somebody_twisted(twist: Twist) -> None:
    tx = closing([FIXED.claim(100_000)], taproot_script(bytes(range(32))), 1000).tx
    runs(tx, FIXED.commitment.coin)
    with pytest.raises((BTClibValueError, engine.ScriptError)):
        engine.verify_transaction(coins(FIXED.commitment.coin), told(twist(tx)))


@pytest.mark.parametrize("early", [FIXED.terms.expiry_height - 1, 0, 500_000_000])
def test_a_refund_that_pretends_to_be_late(early: int) -> None:
    """Signed by the tenant itself; a time instead of a height is no way around."""
    spent = coins(FIXED.commitment.coin)
    tx = refund(FIXED.commitment, CHANGE, 1000, FIXED.tenant).tx._replace(locktime=early)
    found = digest(tx, 0, spent, DEFAULT, FIXED.commitment.funding.refund)
    stack = (FIXED.tenant(found), *tx.witnesses[0][1:])
    with pytest.raises((BTClibValueError, engine.ScriptError)):
        engine.verify_transaction(spent, told(tx._replace(witnesses=(stack,))))


def test_a_refund_whose_sequence_turns_the_lock_time_off() -> None:
    spent, tx = coins(FIXED.commitment.coin), refund(FIXED.commitment, CHANGE, 1000, FIXED.tenant).tx
    final = tx._replace(inputs=(tx.inputs[0]._replace(sequence=0xFFFFFFFF),))
    found = digest(final, 0, spent, DEFAULT, FIXED.commitment.funding.refund)
    stack = (FIXED.tenant(found), *tx.witnesses[0][1:])
    with pytest.raises((BTClibValueError, engine.ScriptError)):
        engine.verify_transaction(spent, told(final._replace(witnesses=(stack,))))
