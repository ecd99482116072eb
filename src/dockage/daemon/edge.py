"""What a peer's message needs besides its bytes before a mind may see it: our key, our view, a valid payment.

One function for each message that needs something; the rest pass through. Which mind a message is for
follows from its type.
"""

from __future__ import annotations

from dockage.domain.channel import Terms
from dockage.domain.errors import PeerError
from dockage.domain.identity import ChannelId, LeaseId, NodeKey
from dockage.domain.reason import Reason
from dockage.domain.statement import Statement, View
from dockage.domain.units import Sat, since
from dockage.node.events import Received
from dockage.node.provider import Provider
from dockage.node.tenant import Tenant
from dockage.ports.machine import Clock, Keys
from dockage.protocol import messages as say

from .driver import Driver
from .peers import Postman
from .rail import Rail
from .relayed import Relayed
from .together import Together
from .tunnels import TunnelCounts

WORTH_A_WORD = ("lease.unknown", "channel.unknown", "channel.not-open", "provider.none")
"""Refusals that an honest peer meets, after a loss of state or because a message was overtaken: it gets an answer
and keeps its connection."""


class Edge:
    def __init__(
        self,
        provider: Driver[Provider] | None,
        tenant: Driver[Tenant],
        keys: Keys,
        rail: Rail | None,
        together: Together | None,
        postman: Postman,
        counts: TunnelCounts,
        relayed: Relayed,
        clock: Clock,
    ) -> None:
        self._provider, self._tenant, self._keys, self._rail = provider, tenant, keys, rail
        self._together = together
        self._postman, self._counts, self._clock = postman, counts, clock
        self._relayed = relayed

    async def handle(self, peer: NodeKey, message: say.AnyMessage, body: bytes, signature: bytes) -> None:
        try:
            if isinstance(message, say.FOR_PROVIDER):
                await self._to_provider(peer, message)
            else:
                await self._to_tenant(peer, message, signature)
        except PeerError as error:
            about = _subject(message)
            if error.code not in WORTH_A_WORD or about is None:
                raise
            if isinstance(message, say.FOR_PROVIDER):
                self._postman.send(peer, say.Refusal(about, Reason(error.code, error.message)))

    async def _to_provider(self, peer: NodeKey, message: say.AnyMessage) -> None:
        if self._provider is None:
            raise PeerError("provider.none", "this node sells nothing")
        match message:
            case say.OpenLease(quote=quote, signature=signature):
                signed = say.SIGNING_CONTEXT + say.encode_body(quote)
                if not self._keys.verify(self._keys.node, signed, signature):
                    raise PeerError("quote.forged", "the quote does not carry our signature")
                await self._provider.submit(Received(peer, message))
            case say.ProposeChannel():
                key, setup = self._key_for(peer, message), await self._setup_for(message)
                await self._provider.submit(Received(peer, message, our_key=key, our_setup=setup))
            case say.AgreeClose():
                await self._take_half(peer, message)
            case say.Payment(channel=channel, paid=paid, signature=signature):
                if self._is_new(peer, channel, paid, signature):
                    await self._provider.submit(Received(peer, message))
            case _:
                await self._provider.submit(Received(peer, message))

    def _key_for(self, peer: NodeKey, proposal: say.ProposeChannel) -> bytes:
        if self._rail is None:
            return bytes(33)  # the mind refuses: it has no network to be paid on
        key = self._rail.our_key("provider", proposal.channel, peer)
        self._rail.check_proposal(
            Terms(proposal.tenant_key, key, proposal.expiry_height, proposal.capacity, proposal.tenant_script)
        )
        return key

    async def _setup_for(self, proposal: say.ProposeChannel) -> bytes:
        """Where the tenant's funding pays us, too; asked for once, whatever a stranger repeats."""
        assert self._provider is not None
        state = self._provider.newest
        if self._rail is None or not state.policy.setup_sat or proposal.channel in state.channels:
            return b""
        return await self._rail.wallet.unused()

    def _is_new(self, peer: NodeKey, id_: ChannelId, paid: int, signature: bytes) -> bool:
        """False for a repetition of the newest payment, which a lost message brings about honestly. A lower one
        may come from a tenant that lost its newest state: the mind shows it ours. Raises PeerError for a bad one."""
        assert self._provider is not None
        channel = self._provider.newest.channels.get(id_)
        if channel is None or channel.peer != peer or self._rail is None:
            raise PeerError("channel.unknown", "no such channel of yours here")
        if paid == channel.paid:
            return False
        if paid > channel.paid:
            self._rail.check_payment(channel, Sat(paid), signature)
        return True

    async def _take_half(self, peer: NodeKey, answer: say.AgreeClose) -> None:
        """The tenant's half of a close, made whole with ours. One that comes too late is nobody's fault."""
        assert self._provider is not None
        channel = self._provider.newest.channels.get(answer.channel)
        if channel is None or channel.peer != peer or self._together is None:
            raise PeerError("channel.unknown", "no such channel of yours here")
        agreed = self._together.finish(answer)
        if agreed is not None:
            await self._provider.submit(agreed)

    async def _to_tenant(self, peer: NodeKey, message: say.AnyMessage, signature: bytes) -> None:
        match message:
            case Statement(lease=lease):
                self._hear(peer, message)
                await self._tenant.submit(Received(peer, message, signature, self._view(lease)))
            case say.ChannelNotice():
                ours = self._is_ours(peer, message)
                await self._tenant.submit(Received(peer, message, signature, ours=ours))
            case say.AcceptChannel(channel=channel, provider_key=key):
                self._check_key(peer, channel, key)
                await self._tenant.submit(Received(peer, message, signature))
            case _:
                await self._tenant.submit(Received(peer, message, signature))

    def _is_ours(self, peer: NodeKey, notice: say.ChannelNotice) -> bool:
        """Whether we signed what the provider shows: then it is true, whatever our own memory says."""
        channel = self._tenant.newest.channels.get(notice.channel)
        if self._rail is None or channel is None or channel.peer != peer or not channel.txid:
            return False
        return self._rail.commitment(channel).is_signed(notice.paid, notice.signature)

    def _check_key(self, peer: NodeKey, id_: ChannelId, key: bytes) -> None:
        """A key that is no point would be a funding that nobody can spend. Raises PeerError("channel.key")."""
        channel = self._tenant.newest.channels.get(id_)
        if self._rail is not None and channel is not None and channel.peer == peer:
            ours = channel.terms
            self._rail.check_proposal(
                Terms(ours.tenant_key, key, ours.expiry_height, ours.capacity, ours.tenant_script)
            )

    def _hear(self, peer: NodeKey, statement: Statement) -> None:
        rented = self._tenant.newest.leases.get(statement.lease)
        if rented is not None and rented.provider == peer:
            self._relayed.hear(statement)

    def _view(self, lease: LeaseId) -> View:
        rented = self._tenant.newest.leases.get(lease)
        opened = rented.opened_at if rented and rented.opened_at else self._clock.now()
        sent, received = self._counts.of(lease)
        into, out = self._relayed.of(lease)
        return View(sent + into, received + out, since(opened, self._clock.now()))


def _subject(message: say.AnyMessage) -> bytes | None:
    """The id of the lease or channel that *message* is about."""
    if isinstance(message, say.OpenLease):
        return message.quote.lease
    return getattr(message, "lease", None) or getattr(message, "channel", None)
