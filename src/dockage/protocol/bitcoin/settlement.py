"""The transactions that end a channel: the provider's close (one or many channels) and the tenant's refund.

The provider alone picks the fee, out of its own share, and picks again later (BIP125): the tenant's signature
covers only its own input and output. Output *i* belongs to input *i*; the provider's payout comes last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dockage.domain.channel import NOTHING, RESERVE
from dockage.domain.errors import UsageError
from dockage.domain.units import Sat

from .channel import SIGNATURE_SIZE, VERSION, Commitment
from .curve import Signer
from .sighash import DEFAULT, PAYMENT, taproot_digest
from .tx import SEQUENCE_RBF, Tx, TxIn, TxOut, Witness, fee_for

DUST = RESERVE
"""sat. The largest dust limit among the outputs we make (P2WSH, P2TR)."""
OPEN_VBYTES = 154
"""One P2TR input, the channel, P2TR change (54 a channel in a batch of ten)."""
SETUP_VBYTES = 43
"""One more P2TR output."""
CLOSE_VBYTES = 205
"""One channel, P2TR outputs (156 a channel in a batch of ten)."""
ADDED_VBYTES = 151
"""What one more channel adds to a close."""
REFUND_VBYTES = 138
BATCH_MAX = 60
"""Channels in one close: version 3 transactions are relayed up to 10,000 vB."""
RELAY_FEERATE = 1000
"""sat per 1000 vB that a replacement must add, and that any transaction must pay, by default policy."""


class Overhead(NamedTuple):
    """What the chain takes for one channel, opened and closed alone."""

    open: Sat
    """Paid by the tenant's wallet, what the provider gets besides included."""
    close: Sat
    """Paid out of the provider's share."""

    @property
    def total(self) -> Sat:
        return Sat(self.open + self.close)

    def smallest_capacity(self, percent: int) -> Sat:
        """The capacity from which the overhead is at most *percent* of the channel."""
        return Sat(-(-self.total * 100 // percent))


def overhead(feerate: int, setup: Sat = NOTHING) -> Overhead:
    """At *feerate* sat per 1000 vB. *setup*: what the funding also pays the provider."""
    size = OPEN_VBYTES + (SETUP_VBYTES if setup else 0)
    return Overhead(Sat(fee_for(size, feerate) + setup), Sat(fee_for(CLOSE_VBYTES, feerate)))


def bumped(feerate: int) -> int:
    """The next rate for a close or refund that does not confirm: half more, and always enough to replace."""
    return max(feerate + RELAY_FEERATE, -(-feerate * 3 // 2))


def replacing(vsize: int, feerate: int, before: int) -> int:
    """*feerate*, or what *vsize* vB need more to replace transactions that pay *before* sat (BIP125, rules 3 and 4)."""
    return max(feerate, -(-before * 1000 // vsize) + RELAY_FEERATE)


class Claim(NamedTuple):
    """One channel's newest payment, and who signs for the provider."""

    commitment: Commitment
    paid: Sat
    signature: bytes
    """The tenant's."""
    sign: Signer


class Settlement(NamedTuple):
    tx: Tx
    fee: Sat
    received: Sat
    """What the last output pays."""


def closing(claims: Sequence[Claim], payout_script: bytes, feerate: int) -> Settlement:
    """Close every channel of *claims* in one signed transaction at *feerate* sat per 1000 vB; call it again
    with a higher rate to replace it. Raises UsageError("channel.uneconomic") if less than dust would be left.
    """
    outpoints = {claim.commitment.outpoint for claim in claims}
    if not 0 < len(claims) <= BATCH_MAX or len(outpoints) != len(claims):
        raise ValueError(f"a close takes 1 to {BATCH_MAX} different channels, not {len(claims)}")
    if any(len(claim.signature) != SIGNATURE_SIZE for claim in claims):
        raise ValueError("a channel without a payment is not closed: its tenant takes it back")
    inputs = tuple(claim.commitment.input for claim in claims)
    changes = tuple(claim.commitment.change(claim.paid) for claim in claims)
    blank = tuple(_close_witness(claim, bytes(SIGNATURE_SIZE)) for claim in claims)
    # All signatures have one length, so the weight is exact before anything is signed.
    size = Tx(VERSION, inputs, (*changes, TxOut(0, payout_script)), 0, blank).vsize
    fee = fee_for(size, feerate)
    received = sum(claim.paid for claim in claims) - fee
    _demand_worth(received, fee, "the provider's share")
    tx = Tx(VERSION, inputs, (*changes, TxOut(received, payout_script)))
    return Settlement(tx._replace(witnesses=_sign_close(tx, claims)), Sat(fee), Sat(received))


def worth_closing(claims: Sequence[Claim], feerate: int) -> list[Claim]:
    """Those that bring more than they add to the fee, if together they bring anything at all."""
    added = fee_for(ADDED_VBYTES, feerate)
    worth = [claim for claim in claims if claim.paid > added]
    first = fee_for(CLOSE_VBYTES - ADDED_VBYTES, feerate)
    return worth if sum(claim.paid - added for claim in worth) - first >= DUST else []


def _sign_close(tx: Tx, claims: Sequence[Claim]) -> tuple[Witness, ...]:
    spent = tuple(claim.commitment.coin for claim in claims)
    return tuple(
        _close_witness(
            claim,
            claim.sign(taproot_digest(tx, i, spent, DEFAULT, claim.commitment.funding.close.hash)),
        )
        for i, claim in enumerate(claims)
    )


def _close_witness(claim: Claim, provider: bytes) -> Witness:
    leaf = claim.commitment.funding.close
    return (provider, claim.signature + bytes([PAYMENT]), leaf.script, leaf.control)


def refund(commitment: Commitment, destination: bytes, feerate: int, sign: Signer) -> Settlement:
    """The tenant takes the whole channel back; a node accepts it once its tip is at the expiry height.
    Raises UsageError("channel.uneconomic")."""
    leaf, terms = commitment.funding.refund, commitment.terms
    inputs = (TxIn(*commitment.outpoint, SEQUENCE_RBF),)
    blank = (bytes(SIGNATURE_SIZE), leaf.script, leaf.control)
    size = Tx(VERSION, inputs, (TxOut(0, destination),), terms.expiry_height, (blank,)).vsize
    fee = fee_for(size, feerate)
    received = terms.capacity - fee
    _demand_worth(received, fee, "the refund")
    tx = Tx(VERSION, inputs, (TxOut(received, destination),), terms.expiry_height)
    signature = sign(taproot_digest(tx, 0, (commitment.coin,), DEFAULT, leaf.hash))
    signed = tx._replace(witnesses=((signature, leaf.script, leaf.control),))
    return Settlement(signed, Sat(fee), Sat(received))


def _demand_worth(received: int, fee: int, what: str) -> None:
    if received < DUST:
        raise UsageError(
            "channel.uneconomic",
            f"after {fee} sat of fees {what} would be {received} sat, less than the {DUST} sat a node relays: "
            "wait for a lower fee rate, or close several channels together",
        )
