"""The close by both, where its secret nonces live: in this process's memory, for one answer, and nowhere else.

Counterpart: ``protocol/bitcoin/together.py``, the transaction itself. The one rule: a secret nonce is taken out of here
before the answer that it is for is looked at; nothing of a session is ever written down.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from dockage.domain.channel import Channel, SpendingTx
from dockage.domain.errors import UsageError
from dockage.domain.identity import ChannelId, NodeKey
from dockage.node.events import CloseAgreed
from dockage.protocol import messages as say
from dockage.protocol.bitcoin.curve import Half, Part
from dockage.protocol.bitcoin.together import CLOSE_VBYTES, Agreement, agreement, check_share

from .rail import CLOSE_TARGET, FUND_TARGET, PATIENT_TARGET, Rail

SESSIONS_MAX = 4096
"""Proposals not yet answered; the oldest is forgotten, and its channel closed alone."""


class _Session(NamedTuple):
    agreement: Agreement
    half: Half


class Together:
    """Serves both roles of this node."""

    def __init__(self, rail: Rail) -> None:
        self._rail = rail
        self._sessions: OrderedDict[ChannelId, _Session] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Together, {len(self._sessions)} proposals not answered>"

    # -- provider ------------------------------------------------------------------------------------
    async def propose(self, channel: Channel, *, give_back: bool) -> say.ProposeClose:
        """Raises UsageError("channel.uneconomic") where nothing would be left for us, unless we *give_back*."""
        script = await self._rail.payout()
        feerate = await self._rail.feerate([channel], CLOSE_TARGET, CLOSE_VBYTES)
        agreed = agreement(self._rail.commitment(channel), channel.paid, script, feerate)
        if not agreed.received:
            feerate = await self._rail.feerate([channel], PATIENT_TARGET, CLOSE_VBYTES)
            agreed = agreement(self._rail.commitment(channel), channel.paid, script, feerate)
        if not agreed.received and not give_back:
            raise UsageError(
                "channel.uneconomic",
                f"the fee of {agreed.fee} sat would leave nothing of {channel.paid} sat that a node relays: "
                "wait for a lower fee rate, or close several channels together",
            )
        half = self._rail.half("provider", channel, channel.peer, agreed.joint)
        self._keep(channel.id, _Session(agreed, half))
        return say.ProposeClose(channel.id, channel.paid, script, feerate, half.nonce)

    def _keep(self, channel: ChannelId, session: _Session) -> None:
        self.forget(channel)
        self._sessions[channel] = session
        if len(self._sessions) > SESSIONS_MAX:
            self.forget(next(iter(self._sessions)))

    def forget(self, channel: ChannelId) -> None:
        session = self._sessions.pop(channel, None)
        if session is not None:
            session.half.forget()

    def finish(self, answer: say.AgreeClose) -> CloseAgreed | None:
        """None if nothing like it was asked, or not any more. Raises PeerError("close.partial" | "close.nonce");
        then, too, our nonce is used up."""
        session = self._sessions.get(answer.channel)
        if session is None or session.half.nonce != answer.asked:
            return None
        agreed, half = self._sessions.pop(answer.channel)
        terms = agreed.commitment.terms
        theirs = Part(terms.tenant_key, answer.nonce, answer.signature)
        ours = Part(terms.provider_key, half.nonce, half.sign(answer.nonce))
        tx = agreed.signed(self._rail.curve, ours, theirs)
        if agreed.received:
            self._rail.payout_used()
        spending = SpendingTx(tx.txid, tx.encode(), agreed.fee, given_back=not agreed.received)
        return CloseAgreed(answer.channel, agreed.paid, spending)

    # -- tenant --------------------------------------------------------------------------------------
    async def co_sign(
        self, channel: Channel, proposal: say.ProposeClose, me: NodeKey
    ) -> tuple[say.AgreeClose, str]:
        """Our half, and the id of what it is of. Raises PeerError("close.*") for what we do not sign, UsageError or
        Unavailable."""
        commitment = self._rail.commitment(channel)
        offered = agreement(commitment, proposal.paid, proposal.payout_script, proposal.feerate)
        check_share(offered, channel.paid, await self._rail.chain.feerate(FUND_TARGET))
        half = self._rail.half("tenant", channel, me, offered.joint)
        nonce = half.nonce
        answer = say.AgreeClose(channel.id, proposal.nonce, nonce, half.sign(proposal.nonce))
        return answer, offered.tx.txid
