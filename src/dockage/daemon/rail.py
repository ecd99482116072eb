"""The channel rail: where the minds' wishes about money meet keys, templates, wallet and chain.

The pure half is ``domain/channel.py`` and ``protocol/bitcoin``. The rule: no transaction ever comes from a
peer; every template is built here from terms that both sides know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec

from dockage.domain.channel import Channel, SpendingTx, Terms
from dockage.domain.errors import PeerError, UsageError
from dockage.domain.identity import ChannelId, NodeKey
from dockage.domain.reason import Reason
from dockage.domain.units import Instant, Sat
from dockage.node.events import FundingBuilt
from dockage.ports.chain import Chain, Coin, Wallet
from dockage.protocol.bitcoin.channel import Commitment, check_funding, check_terms
from dockage.protocol.bitcoin.curve import Curve, Half, Joint, Signer
from dockage.protocol.bitcoin.descriptor import descriptor
from dockage.protocol.bitcoin.script import funding
from dockage.protocol.bitcoin.settlement import (
    ADDED_VBYTES,
    CLOSE_VBYTES,
    REFUND_VBYTES,
    Claim,
    Settlement,
    bumped,
    closing,
    refund,
    replacing,
    worth_closing,
)
from dockage.protocol.bitcoin.tx import parse

Role = Literal["tenant", "provider"]

CLOSE_TARGET = 6
"""Blocks within which a close should confirm."""
PATIENT_TARGET = 144
"""The same, where the fee for a quick one would eat it: there are weeks until the expiry."""
FUND_TARGET = 3
FEERATE_MAX = 100_000
COMMITMENTS_MAX = 4096
"""Derived templates kept ready: about 2 kB each."""


class ChannelKeys(Protocol):
    """See ``adapters/secp/keys.py``."""

    def public(self, role: Role, channel_id: bytes) -> bytes: ...
    def signer(self, role: Role, channel_id: bytes) -> Signer: ...
    def half(self, role: Role, channel_id: bytes, joint: Joint) -> Half: ...
    def wif(self, role: Role, channel_id: bytes, network: str) -> str: ...


class Silence(NamedTuple):
    """The chain's node does not answer."""

    since: Instant
    reason: Reason


class Rail:
    """Serves both roles of this node. Templates are derived and cached, never stored."""

    def __init__(
        self, curve: Curve, keys: ChannelKeys, chain: Chain, wallet: Wallet, feerate_max: int = FEERATE_MAX
    ) -> None:
        """*feerate_max*: sat per 1000 vB that no replacement passes, however long it has waited."""
        self.curve, self._keys, self.chain, self.wallet = curve, keys, chain, wallet
        self._feerate_max = feerate_max
        self.silence: Silence | None = None
        """As ``chainwatch.py`` found it at its last look."""
        self._payout = b""
        self._commitments: dict[tuple[Terms, str, int], Commitment] = {}

    def our_key(self, role: Role, channel: ChannelId, tenant: NodeKey) -> bytes:
        """33 bytes. The tenant names the id, so the provider's key depends on who the tenant is, too."""
        return self._keys.public(role, _key_id(role, channel, tenant))

    def holds(self, role: Role, channel: Channel, me: NodeKey) -> bool:
        """Whether the channel was opened with keys of ours; another seed has other keys."""
        terms = channel.terms
        theirs = me if role == "tenant" else channel.peer
        return self.our_key(role, channel.id, theirs) == (
            terms.tenant_key if role == "tenant" else terms.provider_key
        )

    def commitment(self, channel: Channel) -> Commitment:
        """Kept under all that it follows from. Under its id a peer that we pay could open a channel to us with the same
        id, funding and all, and pay us with the signatures that we paid it with."""
        key = (channel.terms, channel.txid, channel.vout)
        if key not in self._commitments:
            if len(self._commitments) >= COMMITMENTS_MAX:
                self._commitments.pop(next(iter(self._commitments)))
            self._commitments[key] = Commitment(channel.terms, (channel.txid, channel.vout), self.curve)
        return self._commitments[key]

    def check_proposal(self, terms: Terms) -> None:
        """Raises PeerError for terms that cannot be a channel: a key that is no point, a strange script."""
        check_terms(terms)
        funding(terms, self.curve)

    # -- tenant --------------------------------------------------------------------------------------
    async def fund(self, opening: Mapping[ChannelId, Terms]) -> FundingBuilt:
        """All in one transaction, signed and not broadcast; its coins are locked. Raises UsageError or
        Unavailable."""
        outputs = [(funding(terms, self.curve).script, terms.capacity) for terms in opening.values()]
        setups = [(terms.setup_script, terms.setup_sat) for terms in opening.values() if terms.setup_sat]
        tx = await self.wallet.fund([*outputs, *setups], await self.chain.feerate(FUND_TARGET))
        parsed, shares = parse(tx.raw), _shares(tx.fee, len(outputs))
        built: list[FundingBuilt] = []
        for channel, output, fee in zip(opening, outputs, shares, strict=True):
            vout = parsed.find(*output)
            if vout is None:
                raise UsageError(
                    "wallet.wrong-funding", "the wallet made a transaction without the channel in it"
                )
            built.append(FundingBuilt(channel, tx.txid, vout, tx.raw, fee))
        return msgspec.structs.replace(built[0], also=tuple(built[1:]))

    def pay(self, channel: Channel, paid: Sat, me: NodeKey) -> bytes:
        """64 bytes. The new total is on disk before this leaves."""
        return self.commitment(channel).pay(paid, self._signer("tenant", channel, me))

    async def refund(self, channel: Channel, me: NodeKey) -> SpendingTx:
        feerate = await self.feerate([channel], FUND_TARGET, REFUND_VBYTES)
        signer = self._signer("tenant", channel, me)
        return _spending(refund(self.commitment(channel), await self.wallet.script(), feerate, signer))

    def backup(self, channel: Channel, me: NodeKey, network: str) -> str:
        """The one descriptor line with which stock software can refund the channel after its expiry."""
        secret = self._keys.wif("tenant", _key_id("tenant", channel.id, me), network)
        return descriptor(channel.terms, funding(channel.terms, self.curve), secret)

    # -- provider ------------------------------------------------------------------------------------
    def check_payment(self, channel: Channel, paid: Sat, signature: bytes) -> None:
        """Raises PeerError and changes nothing."""
        if not channel.txid:
            raise PeerError("channel.not-open", "the channel has no funding yet")
        self.commitment(channel).check_payment(channel.paid, paid, signature)

    async def settle(self, channels: Sequence[Channel]) -> tuple[SpendingTx, frozenset[ChannelId]]:
        """One close for what was paid on those of *channels* that are worth it, and which these are. Raises
        UsageError("channel.uneconomic") if the fee would eat it all, even at the rate of a patient transaction."""
        claims = {channel.id: self._claim(channel) for channel in channels}
        vsize = CLOSE_VBYTES + (len(channels) - 1) * ADDED_VBYTES
        feerate = await self.feerate(channels, CLOSE_TARGET, vsize)
        worth = worth_closing(list(claims.values()), feerate)
        if not worth:
            feerate = await self.feerate(channels, PATIENT_TARGET, vsize)
            worth = worth_closing(list(claims.values()), feerate) or list(claims.values())
        built = closing(worth, await self.payout(), feerate)
        self.payout_used()
        spending = msgspec.structs.replace(_spending(built), channels=len(worth))
        return spending, frozenset(id_ for id_, claim in claims.items() if claim in worth)

    def _claim(self, channel: Channel) -> Claim:
        signer = self._signer("provider", channel, channel.peer)
        return Claim(self.commitment(channel), channel.paid, channel.signature, signer)

    async def payout(self) -> bytes:
        """Where the next close pays us: a fresh script, kept until a close does pay it."""
        self._payout = self._payout or await self.wallet.script()
        return self._payout

    def payout_used(self) -> None:
        self._payout = b""

    # -- both ----------------------------------------------------------------------------------------
    async def feerate(self, channels: Sequence[Channel], target: int, vsize: int) -> int:
        """sat per 1000 vB for a transaction of *vsize* that spends *channels*. What is made again did not confirm:
        it must pay more, and enough to replace all that is there (BIP125). Raises UsageError("channel.fee-limit"): what
        waits for another reason than its fee, behind a node without peers say, would become all fee by and by."""
        wanted = await self.chain.feerate(target)
        before = {c.spending[-1].txid: c.spending[-1] for c in channels if c.spending}
        for tx in before.values():
            wanted = max(wanted, bumped(tx.fee * 1000 // parse(tx.raw).vsize))
        if not before:
            return wanted
        rate = replacing(vsize, wanted, sum(tx.fee for tx in before.values()))
        if rate > self._feerate_max:
            raise UsageError(
                "channel.fee-limit",
                f"what is on its way does not confirm, and replacing it takes {rate / 1000:.0f} sat/vB, more than "
                f"bitcoin.feerate_max ({self._feerate_max / 1000:.0f}): look whether your bitcoin node has peers, "
                "or raise the limit",
            )
        return rate

    def half(self, role: Role, channel: Channel, tenant: NodeKey, joint: Joint) -> Half:
        """Our half of a close by both, with a fresh nonce."""
        return self._keys.half(role, _key_id(role, channel.id, tenant), joint)

    def check_funding(self, channel: Channel, coin: Coin) -> None:
        """Raises PeerError if *coin* is not the agreed funding output."""
        check_funding(self.commitment(channel), coin)

    def _signer(self, role: Role, channel: Channel, tenant: NodeKey) -> Signer:
        return self._keys.signer(role, _key_id(role, channel.id, tenant))


def _key_id(role: Role, channel: ChannelId, tenant: NodeKey) -> bytes:
    return bytes(channel) if role == "tenant" else tenant + channel


def _shares(fee: Sat, parts: int) -> list[Sat]:
    """Of one fee; the first ones bear what does not divide."""
    return [Sat(fee // parts + (n < fee % parts)) for n in range(parts)]


def _spending(settlement: Settlement) -> SpendingTx:
    return SpendingTx(settlement.tx.txid, settlement.tx.encode(), settlement.fee)


def no_rail() -> UsageError:
    return UsageError(
        "wallet.none", "there is no bitcoin wallet: set [bitcoin] in config.toml, or use free offers only"
    )
