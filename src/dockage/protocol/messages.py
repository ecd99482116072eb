"""Everything two nodes say to each other about leases and channels. Spec: docs/spec/04-messages.md.

Each message is one way and may be lost: whoever needs an answer asks again. A message is a tagged
msgpack array of at most ``MESSAGE_MAX`` bytes; the kinds in ``SIGNED`` carry the sender's Ed25519
signature, so that they can be shown to a third party. Whatever does not decode is a ``PeerError``.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from dockage.domain.channel import RESERVE, SETUP_MAX, ChannelState
from dockage.domain.errors import PeerError
from dockage.domain.identity import ChannelId, LeaseId
from dockage.domain.lease import LeaseState
from dockage.domain.offer import Quote
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.domain.statement import Statement
from dockage.domain.units import Instant, Sat
from dockage.protocol.bitcoin.address import is_witness_program

from .reading import decoded

MESSAGE_MAX = 16 * 1024
MONEY_MAX = 2_100_000_000_000_000
"""Satoshis that can ever exist."""
TIME_MAX = 1 << 63
FEERATE_MAX = 100_000_000
"""sat per 1000 vB: a bound for arithmetic, far above any fee ever paid."""
NONCE_SIZE = 66
SIGNING_CONTEXT = b"dockage/1\0message\0"


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of the messages below; ``Quote`` and ``Statement`` live in the domain."""


# -- tenant to provider ------------------------------------------------------------------------------
class AskQuote(Message, frozen=True, tag="ask-quote"):
    """Answered by Quote or Refusal."""

    lease: LeaseId
    limits: Resources


class OpenLease(Message, frozen=True, tag="open-lease"):
    """The provider's own quote and its signature come back: it need not remember what it quoted."""

    quote: Quote
    signature: bytes


class GrowLease(Message, frozen=True, tag="grow-lease"):
    """Ask for new limits (larger or smaller). Answered by LeaseNotice with the limits in force, or Refusal."""

    lease: LeaseId
    limits: Resources


class AskLease(Message, frozen=True, tag="ask-lease"):
    """After a silence or a restart. Answered by LeaseNotice, or Refusal ``lease.unknown``."""

    lease: LeaseId


class EndLease(Message, frozen=True, tag="end-lease"):
    lease: LeaseId


class ProposeChannel(Message, frozen=True, tag="propose-channel"):
    """Answered by AcceptChannel or Refusal."""

    channel: ChannelId
    tenant_key: bytes
    expiry_height: int
    capacity: Sat
    tenant_script: bytes


class AnnounceFunding(Message, frozen=True, tag="announce-funding"):
    """Never the transaction itself: the provider looks the outpoint up on its own node."""

    channel: ChannelId
    txid: str
    vout: int


class Payment(Message, frozen=True, tag="payment"):
    """``paid`` is cumulative over the channel's life; ``signature`` is BIP340 over the locally built template."""

    channel: ChannelId
    paid: Sat
    signature: bytes


class ResumeChannel(Message, frozen=True, tag="resume-channel"):
    """After a restart, and at each block. Answered by ChannelNotice with the newest payment that the provider holds,
    or Refusal ``channel.unknown``: whichever side is behind catches up by the tenant's own signature."""

    channel: ChannelId


class CloseChannel(Message, frozen=True, tag="close-channel"):
    channel: ChannelId


class AgreeClose(Message, frozen=True, tag="agree-close"):
    """The tenant's half of a close by both."""

    channel: ChannelId
    asked: bytes
    """The provider's nonce that this answers, 66 bytes."""
    nonce: bytes
    signature: bytes
    """Partial, 32 bytes (BIP327)."""


class DeclineClose(Message, frozen=True, tag="decline-close"):
    """The provider closes alone."""

    channel: ChannelId
    asked: bytes
    reason: Reason


# -- provider to tenant ------------------------------------------------------------------------------
class Refusal(Message, frozen=True, tag="refusal"):
    """``about`` is the lease's or channel's id."""

    about: bytes
    reason: Reason


class AcceptChannel(Message, frozen=True, tag="accept-channel"):
    channel: ChannelId
    provider_key: bytes
    confirmations: int
    """How deep the funding must be."""
    setup_script: bytes = b""
    """What the funding must also pay, to the provider; "" and 0 for nothing."""
    setup_sat: Sat = Sat(0)


class ChannelNotice(Message, frozen=True, tag="channel-notice"):
    """The provider's view: ``paid`` and its signature let a tenant that lost state resume by its own signature."""

    channel: ChannelId
    state: ChannelState
    confirmations: int
    paid: Sat
    signature: bytes
    closing_txid: str
    reason: Reason | None


class ProposeClose(Message, frozen=True, tag="propose-close"):
    """What both need to build the same key-path close. Answered by AgreeClose or DeclineClose."""

    channel: ChannelId
    paid: Sat
    payout_script: bytes
    feerate: int
    """sat per 1000 vB; the provider's to pay."""
    nonce: bytes
    """Public, 66 bytes (BIP327)."""


class LeaseNotice(Message, frozen=True, tag="lease-notice"):
    """Signed: a lease's state, why, and the limits in force."""

    lease: LeaseId
    state: LeaseState
    limits: Resources
    at: Instant
    reason: Reason | None


class LeaseEnding(Message, frozen=True, tag="lease-ending"):
    """Signed: the lease runs on until ``ends_at``, the provider's clock, and no longer. Said again every ten seconds,
    for a message may be lost; a newer word (``at``) replaces an older one."""

    lease: LeaseId
    ends_at: Instant
    """0: called off; the end is open again."""
    at: Instant
    reason: Reason


AnyMessage: TypeAlias = (
    AskQuote
    | OpenLease
    | GrowLease
    | AskLease
    | EndLease
    | ProposeChannel
    | AnnounceFunding
    | Payment
    | ResumeChannel
    | CloseChannel
    | AgreeClose
    | DeclineClose
    | Refusal
    | AcceptChannel
    | ChannelNotice
    | ProposeClose
    | LeaseNotice
    | LeaseEnding
    | Quote
    | Statement
)
FOR_PROVIDER = (
    AskQuote,
    OpenLease,
    GrowLease,
    AskLease,
    EndLease,
    ProposeChannel,
    AnnounceFunding,
    Payment,
    ResumeChannel,
    CloseChannel,
    AgreeClose,
    DeclineClose,
)
"""What a tenant says; everything else is what a provider says."""
SIGNED = (Quote, Statement, LeaseNotice, LeaseEnding)


class Envelope(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    body: bytes
    """The canonical encoding of one message."""
    signature: bytes
    """64 bytes over ``SIGNING_CONTEXT + body`` for the kinds in SIGNED, else empty."""


_encoder = msgspec.msgpack.Encoder()
_messages: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)
_envelopes = msgspec.msgpack.Decoder(Envelope)


def encode_body(message: AnyMessage) -> bytes:
    return _encoder.encode(message)


def encode_envelope(body: bytes, signature: bytes = b"") -> bytes:
    return _encoder.encode(Envelope(body, signature))


def decode_body(body: bytes) -> AnyMessage:
    """Of a signed kind, for a check without an envelope. Raises PeerError as ``decode_envelope`` does."""
    return decode_envelope(encode_envelope(body))[0]


def decode_envelope(frame: bytes) -> tuple[AnyMessage, Envelope]:
    """Raises PeerError("message.oversized" | "message.malformed"). The signature is the caller's to check."""
    if len(frame) > MESSAGE_MAX:
        raise PeerError("message.oversized", f"a message of {len(frame)} bytes; {MESSAGE_MAX} is the limit")
    envelope = decoded("message.malformed", "not a message of dockage/1", _envelopes, frame)
    message = decoded("message.malformed", "not a message of dockage/1", _messages, envelope.body)
    _check(message)
    if must_be_signed(message) and encode_body(message) != envelope.body:
        raise PeerError("message.malformed", "a signed message has one encoding, and this is another")
    return message, envelope


def _check(message: AnyMessage) -> None:
    """Sizes and signs that the types do not say; everything behind this line may rely on them."""
    match message:
        case ProposeChannel(tenant_key=key, tenant_script=script, capacity=capacity, expiry_height=height):
            sane = len(key) == 33 and len(script) <= 42 and 0 < capacity < MONEY_MAX and height > 0
        case AcceptChannel(provider_key=key, confirmations=confirmations):
            sane = len(key) == 33 and 0 <= confirmations <= 100 and _sane_setup(message)
        case Payment(paid=paid, signature=signature):
            sane = paid > 0 and len(signature) == 64
        case AgreeClose(asked=asked, nonce=nonce, signature=signature):
            sane = len(asked) == len(nonce) == NONCE_SIZE and len(signature) == 32
        case DeclineClose(asked=asked):
            sane = len(asked) == NONCE_SIZE
        case ProposeClose(paid=paid, payout_script=script, feerate=feerate, nonce=nonce):
            sane = 0 <= paid < MONEY_MAX and len(script) <= 42 and len(nonce) == NONCE_SIZE
            sane = sane and 1000 <= feerate <= FEERATE_MAX
        case AnnounceFunding(txid=txid, vout=vout):
            sane = len(txid) == 64 and all(c in "0123456789abcdef" for c in txid) and 0 <= vout < 1 << 32
        case AskQuote(limits=limits) | GrowLease(limits=limits) | LeaseNotice(limits=limits):
            sane = limits.is_sane
        case LeaseEnding(ends_at=ends_at, at=said_at):
            sane = 0 <= ends_at < TIME_MAX and 0 <= said_at < TIME_MAX
        case OpenLease(quote=quote, signature=signature):
            sane = _sane_quote(quote) and len(signature) == 64
        case Quote():
            sane = _sane_quote(message)
        case Statement():
            sane = _sane_statement(message)
        case ChannelNotice(confirmations=depth, paid=paid, signature=signature, closing_txid=txid):
            sane = depth >= 0 and paid >= 0 and len(signature) in (0, 64) and len(txid) in (0, 64)
        case _:
            sane = True
    if not (sane and _sane_ids(message)):
        raise PeerError("message.out-of-range", f"a {type(message).__name__} with an impossible value")


def _sane_setup(accept: AcceptChannel) -> bool:
    """Nothing at all, or an output that every node relays."""
    if not accept.setup_sat:
        return accept.setup_script == b""
    return is_witness_program(accept.setup_script) and RESERVE <= accept.setup_sat <= SETUP_MAX


def _sane_quote(quote: Quote) -> bool:
    return (
        quote.limits.is_sane
        and quote.tariff.is_sane
        and len(quote.tenant) == 32
        and len(quote.lease) == 16
        and len(quote.network) <= 16
        and 0 <= quote.confirmations <= 100
        and 0 <= quote.credit_sat < MONEY_MAX
        and 0 <= quote.expires < TIME_MAX
    )


def _sane_statement(statement: Statement) -> bool:
    usage = statement.usage
    return (
        statement.seq > 0
        and len(statement.previous) == len(statement.terms) == 32
        and 0 <= statement.at < TIME_MAX
        and statement.due >= 0
        and statement.received_sat >= 0
        and min(statement.memory_bytes, statement.disk_bytes, statement.containers) >= 0
        and min(getattr(usage, name) for name in usage.__struct_fields__) >= 0
    )


def _sane_ids(message: AnyMessage) -> bool:
    for name in ("lease", "channel", "about"):
        if len(getattr(message, name, bytes(16))) != 16:
            return False
    reason = getattr(message, "reason", None)
    return reason is None or reason.is_sane


def must_be_signed(message: AnyMessage) -> bool:
    return isinstance(message, SIGNED)
