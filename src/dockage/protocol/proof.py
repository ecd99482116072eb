"""A provider's contradiction as a file: two things that it signed and that cannot both be true. Spec: 04b §Proofs.

Anybody can check one without a node and without believing whoever shows it; ``dockage verify-proof`` does. The one
rule: only what the signed bytes say counts, and what an honest provider could ever sign proves nothing.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from dockage.domain.errors import PeerError, UsageError
from dockage.domain.identity import NodeKey
from dockage.domain.offer import Quote
from dockage.domain.reason import Reason
from dockage.domain.statement import Statement, contradiction, overcharge

from .messages import SIGNING_CONTEXT, AnyMessage, decode_body, encode_body
from .signed import Verify

PROOF_MAX = 64 * 1024
"""Bytes of a file; two statements take 2 kB."""


class Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    body: str
    """Hex of a message body, as it was signed."""
    signature: str
    """Hex of 64 bytes, over ``SIGNING_CONTEXT + body``."""


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """JSON, so that it can be pasted into a bug report."""

    format: Literal["dockage/1 proof"]
    provider: str
    """Hex of the key that signed both."""
    first: Signed
    second: Signed


class Proven(msgspec.Struct, frozen=True):
    provider: NodeKey
    lease: bytes
    reason: Reason


def make(provider: NodeKey, *items: tuple[Statement | Quote, bytes]) -> Proof:
    (first, signature), (second, signature_2) = items
    return Proof(
        "dockage/1 proof",
        provider.hex(),
        Signed(encode_body(first).hex(), signature.hex()),
        Signed(encode_body(second).hex(), signature_2.hex()),
    )


def encode(proof: Proof) -> bytes:
    return msgspec.json.format(msgspec.json.encode(proof), indent=2) + b"\n"


def decode(data: bytes) -> Proof:
    """Raises UsageError("proof.malformed")."""
    try:
        if len(data) > PROOF_MAX:
            raise ValueError(f"more than {PROOF_MAX} bytes")
        return msgspec.json.decode(data, type=Proof)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UsageError("proof.malformed", f"this is no proof of dockage/1: {error}") from None


def check(proof: Proof, verify: Verify) -> Proven:
    """What *proof* proves. Raises UsageError("proof.malformed" | "proof.signature" | "proof.nothing")."""
    provider = NodeKey(_hex(proof.provider, 32))
    first = _message(provider, proof.first, verify)
    second = _message(provider, proof.second, verify)
    reason = _against(first, second) or _against(second, first)
    if reason is None:
        raise UsageError("proof.nothing", "both are signed, but an honest provider can sign both")
    return Proven(provider, bytes(first.lease), reason)


def _against(first: Statement | Quote, second: Statement | Quote) -> Reason | None:
    match first, second:
        case Statement(), Statement():
            return contradiction(first, second)
        case Quote(), Statement():
            return overcharge(first, second)
        case _:
            return None


def _message(provider: NodeKey, item: Signed, verify: Verify) -> Statement | Quote:
    body, signature = _hex(item.body), _hex(item.signature, 64)
    if not verify(provider, SIGNING_CONTEXT + body, signature):
        raise UsageError("proof.signature", "one of the two is not signed by the provider it accuses")
    try:
        message: AnyMessage = decode_body(body)
    except PeerError as error:
        raise UsageError("proof.malformed", f"one of the two is no message: {error}") from None
    if not isinstance(message, Statement | Quote):
        raise UsageError("proof.malformed", f"a {type(message).__name__} is neither a statement nor a quote")
    return message


def _hex(text: str, size: int | None = None) -> bytes:
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if not data or size not in (None, len(data)):
        raise UsageError("proof.malformed", "a key, body or signature is not the hex that it should be")
    return data
