"""The tenant's half of a close by both: what it signs, and what it declines.

Counterpart: ``provider_closing.py``. The one rule: declining costs nothing, so whatever is not clearly its own due is
declined; the amounts are looked at again where they are signed (``daemon/together.py``).
"""

from __future__ import annotations

from msgspec.structs import replace

from dockage.domain import channel as channels
from dockage.domain.channel import Channel, ChannelState
from dockage.domain.identity import ChannelId
from dockage.domain.reason import Reason
from dockage.protocol import messages as say

from . import effects as want
from .rented import Effects, Tenant, put_channel
from .tenant_channels import TAKING_BACK

NOT_OPEN = Reason("close.not-open", "this channel has no funding that could be returned")
SETTLED = Reason("close.settled", "the chain shows this channel closed already")
EXPIRED = Reason("close.expired", "the channel has expired: the refund returns everything")
OVERPAID = Reason("close.overpaid", "the close takes more than was signed")


def on_proposal(state: Tenant, channel: Channel, proposal: say.ProposeClose) -> tuple[Tenant, Effects]:
    """From here on nothing more is paid on it; that is on disk before our half is made."""
    why = _why_not(state, channel, proposal)
    if why is not None:
        return state, (want.Send(channel.peer, say.DeclineClose(channel.id, proposal.nonce, why)),)
    if channel.is_live:
        state = put_channel(state, channels.move(channel, ChannelState.CLOSING))
    return state, (want.CoSign(channel.peer, proposal),)


def on_co_signed(state: Tenant, id_: ChannelId, txid: str) -> tuple[Tenant, Effects]:
    channel = state.channels.get(id_)
    return (state, ()) if channel is None else (put_channel(state, replace(channel, agreed_txid=txid)), ())


def _why_not(state: Tenant, channel: Channel, proposal: say.ProposeClose) -> Reason | None:
    if not channel.txid or channel.state is ChannelState.ABANDONED:
        return NOT_OPEN
    if channel.settled_txid or channel.state is ChannelState.CLOSED:
        return SETTLED
    if channel.state in TAKING_BACK or state.height >= channel.terms.expiry_height:
        return EXPIRED
    return OVERPAID if proposal.paid > channel.paid else None
