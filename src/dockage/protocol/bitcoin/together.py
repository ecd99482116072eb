"""The close by both: one key-path transaction that each side builds from the same few values (BIP327, BIP341).

Counterpart: ``settlement.py``, the provider's close alone. The one rule: what comes from the peer is amounts, a script
and halves of a signature; the tenant signs only what returns to it all that it did not pay.
Spec: docs/spec/05-channel.md.
"""

from __future__ import annotations

from typing import NamedTuple

from dockage.domain.channel import RESERVE
from dockage.domain.errors import PeerError, UsageError
from dockage.domain.units import Sat

from .address import is_witness_program
from .channel import SIGNATURE_SIZE, VERSION, Commitment
from .curve import Curve, Joint, Part
from .settlement import REFUND_VBYTES, RELAY_FEERATE
from .sighash import DEFAULT, taproot_digest
from .tx import Tx, TxOut, fee_for

CLOSE_VBYTES = 154
"""P2TR outputs."""
HOPELESS = Sat(fee_for(CLOSE_VBYTES, RELAY_FEERATE) + RESERVE)
"""Less was never worth a close, at any fee rate that nodes relay: a provider gives it back."""


class Agreement(NamedTuple):
    """The transaction that both sign, as either side builds it."""

    commitment: Commitment
    paid: Sat
    tx: Tx
    """Unsigned."""
    fee: Sat
    returned: Sat
    """To the tenant."""
    received: Sat
    """By the provider; 0 if what is left after the fee is dust, which then goes back to the tenant."""

    @property
    def joint(self) -> Joint:
        """What is signed, by whom."""
        terms, funding = self.commitment.terms, self.commitment.funding
        digest = taproot_digest(self.tx, 0, (self.commitment.coin,), DEFAULT)
        return Joint((terms.tenant_key, terms.provider_key), funding.tweak, digest)

    def signed(self, curve: Curve, one: Part, other: Part) -> Tx:
        """Ready to broadcast. Raises PeerError("close.partial" | "close.nonce")."""
        return self.tx._replace(witnesses=((curve.join(self.joint, one, other),),))


def agreement(commitment: Commitment, paid: Sat, payout_script: bytes, feerate: int) -> Agreement:
    """The close for *paid* sat in all at *feerate* sat per 1000 vB. Raises PeerError("close.script") and
    UsageError("channel.uneconomic") if even the whole channel is not worth the fee."""
    if not is_witness_program(payout_script):
        raise PeerError(
            "close.script",
            "the provider's payout script is not P2WPKH, P2WSH or P2TR, so it might not be relayed",
        )
    fee = _fee(commitment, feerate, payout_script)
    if paid - fee >= RESERVE:
        return _agreement(commitment, paid, fee, TxOut(paid - fee, payout_script))
    fee = _fee(commitment, feerate)
    if commitment.terms.capacity - fee < RESERVE:
        raise UsageError(
            "channel.uneconomic", f"the channel holds less than {fee} sat of fees and {RESERVE} sat to relay"
        )
    return _agreement(commitment, paid, fee)


def _agreement(commitment: Commitment, paid: Sat, fee: int, *payout: TxOut) -> Agreement:
    received = sum(out.value for out in payout)
    change = TxOut(commitment.terms.capacity - fee - received, commitment.terms.tenant_script)
    tx = Tx(VERSION, (commitment.input,), (change, *payout))
    return Agreement(commitment, paid, tx, Sat(fee), Sat(change.value), Sat(received))


def _fee(commitment: Commitment, feerate: int, *scripts: bytes) -> int:
    """All signatures have one length, so the size is exact before anything is signed."""
    outputs = tuple(TxOut(0, script) for script in (commitment.terms.tenant_script, *scripts))
    return fee_for(Tx(VERSION, (commitment.input,), outputs, 0, ((bytes(SIGNATURE_SIZE),),)).vsize, feerate)


def check_share(offered: Agreement, signed: Sat, feerate: int) -> None:
    """Tenant: *signed* is what it paid, *feerate* what its own node estimates now. Raises PeerError for a close that
    returns less than is its own, a fee apart that its refund would cost it, too."""
    if offered.paid > signed:
        raise PeerError(
            "close.overpaid", f"the close takes {offered.paid} sat; only {signed} sat were signed"
        )
    terms = offered.commitment.terms
    missing = terms.capacity - signed - offered.returned
    if missing > 0 and offered.fee > fee_for(REFUND_VBYTES, feerate):
        raise PeerError(
            "close.fee", f"the close returns {missing} sat too little: its fee is more than that of a refund"
        )
