"""The channel rail: where the minds' wishes about money meet keys, templates, wallet and chain.

The pure half is ``domain/channel.py`` and ``protocol/bitcoin``. The rule: no transaction ever comes from a
peer; every template is built here from terms that both sides know.
"""

from __future__ import annotations

from typing import Literal, Protocol

from dockage.domain.channel import Channel, SpendingTx, Terms
from dockage.domain.errors import PeerError, UsageError
from dockage.domain.identity import ChannelId, NodeKey
from dockage.domain.units import Sat
from dockage.node.events import FundingBuilt
from dockage.ports import Chain, Coin, Wallet
from dockage.protocol.bitcoin.channel import Commitment, check_terms
from dockage.protocol.bitcoin.curve import Curve, Signer
from dockage.protocol.bitcoin.descriptor import descriptor
from dockage.protocol.bitcoin.script import funding
from dockage.protocol.bitcoin.settlement import Claim, Settlement, bumped, closing, refund
from dockage.protocol.bitcoin.tx import parse

Role = Literal["tenant", "provider"]

CLOSE_TARGET = 6
"""Blocks within which a close should confirm."""
FUND_TARGET = 3
COMMITMENTS_MAX = 4096
"""Derived templates kept ready: about 2 kB each."""


class ChannelKeys(Protocol):
    """See ``adapters/secp/keys.py``."""

    def public(self, role: Role, channel_id: bytes) -> bytes: ...
    def signer(self, role: Role, channel_id: bytes) -> Signer: ...
    def wif(self, role: Role, channel_id: bytes, network: str) -> str: ...


class Rail:
    """Serves both roles of this node. Templates are derived and cached, never stored."""

    def __init__(self, curve: Curve, keys: ChannelKeys, chain: Chain, wallet: Wallet) -> None:
        self._curve, self._keys, self.chain, self.wallet = curve, keys, chain, wallet
        self._commitments: dict[tuple[ChannelId, str], Commitment] = {}

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
        key = (channel.id, channel.txid)
        if key not in self._commitments:
            if len(self._commitments) >= COMMITMENTS_MAX:
                self._commitments.pop(next(iter(self._commitments)))
            self._commitments[key] = Commitment(channel.terms, (channel.txid, channel.vout), self._curve)
        return self._commitments[key]

    def check_proposal(self, terms: Terms) -> None:
        """Raises PeerError for terms that cannot be a channel: a key that is no point, a strange script."""
        check_terms(terms)
        funding(terms, self._curve)

    # -- tenant --------------------------------------------------------------------------------------
    async def fund(self, channel: ChannelId, terms: Terms) -> FundingBuilt:
        """Signed and not broadcast; its coins are locked. Raises UsageError or Unavailable."""
        script = funding(terms, self._curve).script
        outputs = [(script, terms.capacity)]
        if terms.setup_sat:
            outputs.append((terms.setup_script, terms.setup_sat))
        tx = await self.wallet.fund(outputs, await self.chain.feerate(FUND_TARGET))
        vout = parse(tx.raw).find(script, terms.capacity)
        if vout is None:
            raise UsageError(
                "wallet.wrong-funding", "the wallet made a transaction without the channel in it"
            )
        return FundingBuilt(channel, tx.txid, vout, tx.raw, tx.fee)

    def pay(self, channel: Channel, paid: Sat, me: NodeKey) -> bytes:
        """64 bytes. The new total is on disk before this leaves."""
        return self.commitment(channel).pay(paid, self._signer("tenant", channel, me))

    async def refund(self, channel: Channel, me: NodeKey) -> SpendingTx:
        feerate = await self._feerate(channel, FUND_TARGET)
        signer = self._signer("tenant", channel, me)
        return _spending(refund(self.commitment(channel), await self.wallet.script(), feerate, signer))

    def backup(self, channel: Channel, me: NodeKey, network: str) -> str:
        """The one descriptor line with which stock software can refund the channel after its expiry."""
        secret = self._keys.wif("tenant", _key_id("tenant", channel.id, me), network)
        return descriptor(channel.terms, funding(channel.terms, self._curve), secret)

    # -- provider ------------------------------------------------------------------------------------
    def check_payment(self, channel: Channel, paid: Sat, signature: bytes) -> None:
        """Raises PeerError and changes nothing."""
        if not channel.txid:
            raise PeerError("channel.not-open", "the channel has no funding yet")
        self.commitment(channel).check_payment(channel.paid, paid, signature)

    async def settle(self, channel: Channel) -> SpendingTx:
        """The close for what was paid. Raises UsageError("channel.uneconomic") if the fee would eat it."""
        signer = self._signer("provider", channel, channel.peer)
        claim = Claim(self.commitment(channel), channel.paid, channel.signature, signer)
        feerate = await self._feerate(channel, CLOSE_TARGET)
        return _spending(closing([claim], await self.wallet.script(), feerate))

    # -- both ----------------------------------------------------------------------------------------
    async def _feerate(self, channel: Channel, target: int) -> int:
        """sat per 1000 vB. What is made again did not confirm: it must pay more, and enough to replace (BIP125)."""
        wanted = await self.chain.feerate(target)
        if not channel.spending:
            return wanted
        before = channel.spending[-1]
        return max(wanted, bumped(before.fee * 1000 // parse(before.raw).vsize))

    def why_wrong(self, channel: Channel, coin: Coin) -> str:
        """Why *coin* is not the agreed funding output; "" if it is."""
        if coin.value != channel.terms.capacity:
            return f"the funding output holds {coin.value} sat, not {channel.terms.capacity}"
        if coin.script != self.commitment(channel).funding.script:
            return "the funding output does not pay the agreed channel script"
        return "the funding is a coinbase" if coin.coinbase else ""

    def _signer(self, role: Role, channel: Channel, tenant: NodeKey) -> Signer:
        return self._keys.signer(role, _key_id(role, channel.id, tenant))


def _key_id(role: Role, channel: ChannelId, tenant: NodeKey) -> bytes:
    return bytes(channel) if role == "tenant" else tenant + channel


def _spending(settlement: Settlement) -> SpendingTx:
    return SpendingTx(settlement.tx.txid, settlement.tx.encode(), settlement.fee)


def no_rail() -> UsageError:
    return UsageError(
        "wallet.none", "there is no bitcoin wallet: set [bitcoin] in config.toml, or use free offers only"
    )
