"""Payments over a funded channel, and every reason to refuse one.

A payment is ``(cumulative sat, 64-byte Schnorr signature)`` over a template that each side builds itself: no
transaction ever comes from the peer. A wrong sighash type, output, version, lock time, outpoint or key is
therefore one and the same thing, a bad signature. Spec: docs/spec/05-channel.md.
"""

from __future__ import annotations

from typing import Protocol

from dockage.domain.channel import RESERVE, Terms
from dockage.domain.errors import PeerError
from dockage.domain.units import Sat

from .address import is_witness_program
from .curve import Curve, Signer
from .script import funding
from .sighash import PaymentHash
from .tx import SEQUENCE_RBF, OutpointLike, TxIn, TxOut

_HEX = frozenset("0123456789abcdef")
VERSION = 3
"""TRUC (BIP431): a node that enforces it lets nobody pin the close with a large child of the change."""
SIGNATURE_SIZE = 64
HEIGHT_MAX = 499_999_999
"""A lock time above is read as a Unix time (BIP65)."""
CAPACITY_MIN = 2 * RESERVE
"""The tenant's output and the provider's output, both above dust."""
SUPPLY = 21_000_000 * 100_000_000


def check_terms(terms: Terms) -> None:
    """Before our key goes into a script with the peer's. Raises PeerError("channel.terms")."""
    for key in (terms.tenant_key, terms.provider_key):
        if len(key) != 33 or key[0] not in (2, 3):
            raise _bad_terms("a key is not 33 bytes in compressed form")
    if terms.tenant_key[1:] == terms.provider_key[1:]:
        raise _bad_terms("both keys are the same, so the tenant alone could take the money back")
    if not 0 < terms.expiry_height <= HEIGHT_MAX:
        raise _bad_terms(f"the expiry {terms.expiry_height} is not a block height")
    if not CAPACITY_MIN <= terms.capacity <= SUPPLY:
        raise _bad_terms(f"a channel holds at least {CAPACITY_MIN} sat, not {terms.capacity}")
    if not is_witness_program(terms.tenant_script):
        raise _bad_terms(
            "the tenant's script is not P2WPKH, P2WSH or P2TR, so the close might not be relayed"
        )


def check_outpoint(outpoint: OutpointLike) -> None:
    """The peer names it, so it may be anything. Raises PeerError("channel.outpoint")."""
    txid, vout = outpoint
    if len(txid) != 64 or not _HEX.issuperset(txid) or not 0 <= vout < 1 << 32:
        raise PeerError(
            "channel.outpoint", "a funding output is named by 64 lower-case hex digits and a number"
        )


def _bad_terms(why: str) -> PeerError:
    return PeerError("channel.terms", f"these channel terms cannot be used: {why}")


class Commitment:
    """The closing template of one funded channel with everything constant already hashed.

    Both sides hold one per live channel; it is derived from (terms, outpoint) and is never stored."""

    def __init__(self, terms: Terms, outpoint: OutpointLike, curve: Curve) -> None:
        """Raises PeerError("channel.terms"), ("channel.key") or ("channel.outpoint")."""
        check_terms(terms)
        check_outpoint(outpoint)
        self.terms = terms
        self.outpoint = outpoint
        self.funding = funding(terms, curve)
        self.input = TxIn(outpoint[0], outpoint[1], SEQUENCE_RBF)
        self.coin = TxOut(terms.capacity, self.funding.script)
        self._curve = curve
        self._tenant = terms.tenant_key[1:]
        self._hash = PaymentHash(VERSION, self.input, self.coin, self.funding.close.hash, terms.tenant_script)

    def __repr__(self) -> str:
        txid, vout = self.outpoint
        return f"<Commitment {txid[:8]}:{vout} {self.terms.capacity} sat until {self.terms.expiry_height}>"

    def change(self, paid: int) -> TxOut:
        """Output 0: what the tenant gets back."""
        return TxOut(self.terms.capacity - paid, self.terms.tenant_script)

    def digest(self, paid: int) -> bytes:
        """What the tenant signs (SIGHASH_SINGLE|ANYONECANPAY) to have paid *paid* sat in all."""
        return self._hash.digest(self.terms.capacity - paid)

    def pay(self, paid: Sat, sign: Signer) -> bytes:
        """Tenant: the signature that makes *paid* sat the total. The new total is stored before this leaves."""
        check_amount(self.terms, 0, paid)
        return sign(self.digest(paid))

    def is_signed(self, paid: int, signature: bytes) -> bool:
        """Whether the tenant signed this total. Also how a tenant that lost its state recognises its own.
        False, never an error, for any amount or signature that a peer may send."""
        return (
            type(paid) is int
            and 0 < paid <= self.terms.spendable
            and len(signature) == SIGNATURE_SIZE
            and self._curve.verify(self._tenant, self.digest(paid), signature)
        )

    def check_payment(self, before: Sat, paid: Sat, signature: bytes) -> None:
        """Provider: take *paid* for the new total, or raise PeerError and change nothing. *before*: the total
        so far."""
        check_amount(self.terms, before, paid)
        if not self.is_signed(paid, signature):
            raise PeerError("channel.signature", f"the tenant's signature does not pay {paid} sat")


def check_amount(terms: Terms, before: int, paid: int) -> None:
    """The cheap half of a payment's check, in the same words as ``domain.channel.pay``."""
    # bool is an int to Python, and True would be a payment of one satoshi.
    if type(paid) is not int:
        raise PeerError("channel.amount", f"an amount is a whole number of sat, not {type(paid).__name__}")
    if paid <= before:
        raise PeerError("channel.not-increasing", f"{paid} sat is not more than the {before} sat paid")
    if paid > terms.spendable:
        raise PeerError("channel.overdrawn", f"{paid} sat is more than the {terms.spendable} sat it can pay")


class SeenCoin(Protocol):
    """An unspent output as a node shows it; ``ports.chain.Coin`` is one."""

    @property
    def value(self) -> Sat: ...
    @property
    def script(self) -> bytes: ...
    @property
    def confirmations(self) -> int: ...
    @property
    def coinbase(self) -> bool: ...


COINBASE_MATURITY = 100
"""Consensus: nobody can spend a coinbase before, so no close of it could be broadcast."""


def check_funding(commitment: Commitment, coin: SeenCoin) -> None:
    """Whether what our own node shows at the outpoint is the agreed output. Raises PeerError("channel.value" |
    "channel.script" | "channel.immature")."""
    terms = commitment.terms
    if coin.value != terms.capacity:
        raise PeerError("channel.value", f"the funding output holds {coin.value} sat, not {terms.capacity}")
    if coin.script != commitment.funding.script:
        raise PeerError("channel.script", "the funding output does not pay the agreed channel script")
    if coin.coinbase and coin.confirmations < COINBASE_MATURITY:
        raise PeerError("channel.immature", "the funding is a coinbase that cannot be spent yet")
