"""A payment channel as a state machine: the tenant pays, the provider is paid, one direction only.

Nothing here signs, stores, waits or reads a clock. Both sides run the same machine; what only one of
them does is said at the event. Signatures were checked at the edge before an event gets here
(``protocol/bitcoin``); amounts are whole satoshis and *cumulative*.
"""

from __future__ import annotations

import enum

import msgspec
from msgspec.structs import replace

from .errors import PeerError
from .identity import ChannelId, NodeKey
from .reason import Reason
from .units import Instant, Sat

NOTHING = Sat(0)
NEVER = Instant(0)
SETUP_MAX = Sat(10_000)
"""More than a provider ever needs to see its channel and to close it."""
RESERVE = Sat(330)
"""The tenant's output is never dust, so that it always exists and the template never changes shape."""
SETTLE_BEFORE_EXPIRY = 144
"""Blocks. After expiry the tenant's refund races the close: the provider must be a day early."""
STOP_BEFORE_EXPIRY = 288
"""Blocks. No lease is served on a channel this near to its expiry."""
BURIED = 6
"""Confirmations after which a close is history."""
BUMP_AFTER = 6
"""Blocks a close may wait in the mempool before it is built again with a higher fee."""
FORGET_UNFUNDED = 144
"""Blocks a provider keeps a channel that was agreed on and never funded."""


class ChannelState(enum.StrEnum):
    OPENING = "opening"
    """Terms agreed; no funding transaction known yet."""
    FUNDED = "funded"
    """The funding transaction is known but not yet as deep as the provider wants it."""
    OPEN = "open"
    CLOSING = "closing"
    """A close is on its way to the chain."""
    CLOSED = "closed"
    """The close is buried."""
    EXPIRED = "expired"
    """The expiry has passed and nobody has spent the output: it is the tenant's to take back."""
    REFUNDING = "refunding"
    """Tenant only: the expiry has passed and the whole output is on its way back."""
    ABANDONED = "abandoned"
    """Never funded, or the funding was double-spent."""


_FROM_LIVE = frozenset(
    {
        ChannelState.CLOSING,
        ChannelState.CLOSED,
        ChannelState.EXPIRED,
        ChannelState.ABANDONED,  # a reorganisation, and the coins were spent elsewhere
    }
)
TRANSITIONS: dict[ChannelState, frozenset[ChannelState]] = {
    ChannelState.OPENING: frozenset({ChannelState.FUNDED, ChannelState.ABANDONED}),
    ChannelState.FUNDED: _FROM_LIVE | {ChannelState.OPEN},
    ChannelState.OPEN: _FROM_LIVE | {ChannelState.FUNDED},  # a reorganisation took confirmations away
    ChannelState.CLOSING: frozenset(
        {
            ChannelState.CLOSED,
            ChannelState.EXPIRED,  # tenant: the close that was announced never came
            ChannelState.ABANDONED,  # a reorganisation took the funding from under the close
        }
    ),
    ChannelState.EXPIRED: frozenset({ChannelState.REFUNDING, ChannelState.CLOSED, ChannelState.ABANDONED}),
    ChannelState.REFUNDING: frozenset({ChannelState.CLOSED, ChannelState.ABANDONED}),
    ChannelState.CLOSED: frozenset(),
    ChannelState.ABANDONED: frozenset({ChannelState.FUNDED, ChannelState.OPEN}),  # the funding came after all
}
"""Read by the property test, by the diagram in the docs, and by people."""


class Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything the funding script and the templates are built from. Immutable for the channel's life."""

    tenant_key: bytes
    """33-byte compressed secp256k1 public key."""
    provider_key: bytes
    expiry_height: int
    """Absolute block height from which the tenant can take everything back."""
    capacity: Sat
    tenant_script: bytes
    """scriptPubKey of the tenant's change and refund."""
    setup_script: bytes = b""
    """What the funding transaction also pays, to the provider: a light client sees only what pays it, and so sees
    the channel beside it. In no template."""
    setup_sat: Sat = NOTHING
    """Before the provider has answered: the most that the tenant pays."""

    @property
    def spendable(self) -> Sat:
        return Sat(self.capacity - RESERVE)


def with_setup(terms: Terms, script: bytes, sat: Sat) -> Terms:
    return replace(terms, setup_script=script, setup_sat=sat)


class SpendingTx(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A transaction that spends the channel: stored before it is broadcast, kept for ever."""

    txid: str
    raw: bytes
    fee: Sat
    """Of the whole transaction."""
    channels: int = 1
    """How many it closes."""
    given_back: bool = False
    """Provider: what was paid was not worth a fee and went back to the tenant."""

    @property
    def share(self) -> Sat:
        """This channel's part of the fee, rounded up."""
        return Sat(-(-self.fee // self.channels))


class Channel(msgspec.Struct, frozen=True):
    id: ChannelId
    peer: NodeKey
    terms: Terms
    state: ChannelState = ChannelState.OPENING
    txid: str = ""
    vout: int = 0
    funding_raw: bytes = b""
    """Tenant only: kept for rebroadcast until it is buried."""
    funding_fee: Sat = NOTHING
    opened_height: int = 0
    """Where to start looking for the transaction that spends the channel; before the funding: when it was agreed."""
    seen: bool = False
    """The chain or the mempool has shown the funding: more than the tenant's word."""
    confirmations: int = 0
    needed: int = 1
    """Confirmations that make it OPEN."""
    paid: Sat = NOTHING
    signature: bytes = b""
    """Provider: the tenant's signature over ``paid``. Tenant: its own newest one is re-made when needed."""
    spending: tuple[SpendingTx, ...] = ()
    """Closes (provider) or refunds (tenant) made so far, newest last."""
    spent_height: int = 0
    """When the newest of them was built."""
    close_at: Instant = NEVER
    """Set once somebody wants it closed: no lease starts on it, and after this moment no payment is waited for."""
    asked_until: Instant = NEVER
    """Provider: how long the tenant's half of a close by both is waited for."""
    agreed_txid: str = ""
    """The newest close that we signed our half of."""
    settled_txid: str = ""
    """The transaction that did spend it, once it is on the chain."""
    reason: Reason | None = None

    def __repr__(self) -> str:
        return f"<Channel {self.id.hex()[:8]} {self.state} paid {self.paid}/{self.terms.capacity} sat>"

    @property
    def is_spent_by_other(self) -> bool:
        """The chain shows a transaction that we did not make: broadcasting ours again is in vain."""
        return bool(self.settled_txid) and all(tx.txid != self.settled_txid for tx in self.spending)

    @property
    def is_given_back(self) -> bool:
        """It was closed so that all of it went back to the tenant: what was paid on it earned nothing."""
        return any(tx.given_back for tx in self.spending if tx.txid == self.settled_txid)

    @property
    def remaining(self) -> Sat:
        return Sat(self.terms.spendable - self.paid)

    @property
    def is_live(self) -> bool:
        return self.state in (ChannelState.FUNDED, ChannelState.OPEN)

    @property
    def is_over(self) -> bool:
        return self.state in (ChannelState.CLOSED, ChannelState.ABANDONED)

    def is_watched_at(self, height: int) -> bool:
        """Whether what the chain shows of it still matters: until it is buried; and a funding that we gave up may
        yet come, with our coins (tenant) or our earnings (provider) in it."""
        if self.state is not ChannelState.ABANDONED:
            return bool(self.txid) and not self.is_over
        worth = bool(self.txid) and bool(self.funding_raw or self.paid)
        return worth and height < self.terms.expiry_height + SETTLE_BEFORE_EXPIRY

    def serves_at(self, height: int) -> bool:
        """Whether a lease may still be served on it at *height*."""
        return self.is_live and not self.close_at and height < self.terms.expiry_height - STOP_BEFORE_EXPIRY

    def must_settle_at(self, height: int) -> bool:
        return self.is_live and height >= self.terms.expiry_height - SETTLE_BEFORE_EXPIRY


def move(channel: Channel, state: ChannelState, reason: Reason | None = None) -> Channel:
    """Go to *state*. A move that is not in the table is a bug of ours, never a peer's doing."""
    if state is channel.state:
        return channel
    assert state in TRANSITIONS[channel.state], (channel, state)
    return replace(channel, state=state, reason=reason or channel.reason)


def fund(channel: Channel, txid: str, vout: int, height: int) -> Channel:
    """The funding outpoint is known. The same one twice changes nothing; another one is refused."""
    if channel.state is ChannelState.ABANDONED and not channel.txid:
        raise PeerError("channel.not-open", "the channel was never funded in time; propose a new one")
    if channel.state is not ChannelState.OPENING:
        if (txid, vout) != (channel.txid, channel.vout):
            raise PeerError("channel.refunded-twice", "the channel already has another funding outpoint")
        return channel
    return replace(
        move(channel, ChannelState.FUNDED), txid=txid, vout=vout, opened_height=max(0, height - BURIED)
    )


def confirm(channel: Channel, confirmations: int) -> Channel:
    """The chain shows the output, unspent, at this depth: deeper opens it, a reorganisation un-opens it. Whatever
    had spent it is undone, and a channel that was given up is back."""
    if not channel.txid or channel.state is ChannelState.CLOSED:
        return channel
    seen = replace(channel, confirmations=confirmations, seen=True, settled_txid="")
    if seen.state is ChannelState.ABANDONED:
        seen = replace(seen, reason=None)
    elif not seen.is_live:
        return seen
    return move(seen, ChannelState.OPEN if confirmations >= channel.needed else ChannelState.FUNDED)


def miss(channel: Channel) -> Channel:
    """Neither a block nor a mempool holds the funding any more: from now on it is the tenant's word again."""
    if not channel.txid or channel.is_over:
        return channel
    missed = replace(channel, confirmations=0, seen=False, settled_txid="")
    return move(missed, ChannelState.FUNDED) if missed.is_live else missed


def vanish(channel: Channel, reason: Reason) -> Channel:
    """The funding can no longer confirm: somebody spent its coins elsewhere."""
    if channel.is_over or channel.state is ChannelState.OPENING or channel.settled_txid:
        return channel
    return move(replace(channel, confirmations=0), ChannelState.ABANDONED, reason)


def expire(channel: Channel, height: int) -> Channel:
    """From its expiry on an unspent channel is the tenant's to take back; nothing is paid on it any more."""
    waits = channel.is_live or channel.state is ChannelState.CLOSING
    if not waits or channel.settled_txid or height < channel.terms.expiry_height:
        return channel
    return move(channel, ChannelState.EXPIRED)


def pay(channel: Channel, total: Sat, signature: bytes) -> Channel:
    """A payment of *total*, whose signature is already verified. Each refusal leaves no trace."""
    if not channel.is_live:
        raise PeerError("channel.not-open", f"the channel is {channel.state}; it takes no payment")
    if total <= channel.paid:
        raise PeerError("channel.not-increasing", f"{total} sat is not more than the {channel.paid} sat paid")
    if total > channel.terms.spendable:
        raise PeerError(
            "channel.overdrawn", f"{total} sat is more than the {channel.terms.spendable} sat it can pay"
        )
    return replace(channel, paid=total, signature=signature)


def spend(channel: Channel, tx: SpendingTx, state: ChannelState) -> Channel:
    """A close or refund was built: remember it before anybody broadcasts it."""
    if any(known.txid == tx.txid for known in channel.spending):
        return channel
    return replace(move(channel, state), spending=(*channel.spending, tx))


def settle(channel: Channel, txid: str, depth: int) -> Channel:
    """The chain shows *txid* spending the channel at *depth*. Whoever closed it, it takes no payment any more.
    At depth 0 it is not, or no longer, in a block: a mempool may still drop it."""
    if channel.is_over or channel.state is ChannelState.OPENING:
        return channel
    if depth < 1:
        return replace(channel, settled_txid="") if channel.settled_txid else channel
    seen = replace(channel, settled_txid=txid)
    if seen.is_live:
        seen = move(seen, ChannelState.CLOSING)
    return move(seen, ChannelState.CLOSED) if depth >= BURIED else seen
