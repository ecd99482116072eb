"""One machine of the world: the real minds, a journal in bytes, and the performing of what they want.

Counterpart: ``daemon/`` (driver, edge, perform, chainwatch). The one rule: journal first, then state, then effects;
a crash forgets everything but the journal, the coins and the machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from random import Random
from typing import NamedTuple

from dockage.domain.channel import Channel, ChannelState, SpendingTx
from dockage.domain.errors import PeerError
from dockage.domain.identity import ChannelId, LeaseId, NodeKey
from dockage.domain.lease import METERED
from dockage.domain.offer import Quote
from dockage.domain.reason import Reason
from dockage.domain.statement import Statement, View
from dockage.domain.units import MILLISECOND, MINUTE, SECOND, Duration, Instant, Sat, since
from dockage.node import effects as want
from dockage.node import events as told
from dockage.node import provider as selling
from dockage.node import records
from dockage.node import tenant as renting
from dockage.node.policy import ProviderPolicy, TenantPolicy
from dockage.node.provider import Provider
from dockage.node.tenant import Tenant
from dockage.protocol import messages as say
from dockage.protocol import proof as proofs
from dockage.protocol.messages import AgreeClose, ProposeClose

from . import chain as chains
from .chain import Chain, Output
from .hosts import Host
from .network import Network
from .world import World

WORTH_A_WORD = ("lease.unknown", "channel.unknown")
FUND_FEE, CLOSE_FEE, TOGETHER_FEE, REFUND_FEE = Sat(154), Sat(204), Sat(154), Sat(137)
MISSING_MAX = Duration(5 * MINUTE)
NO_COINS = Reason("wallet.insufficient", "not enough coins in the wallet")
NOT_WORTH_IT = Reason("channel.not-worth-closing", "less was paid than a close costs")
NOT_SEEN = Reason("probe.refused", "the provider cannot be reached")
ANY_SIGNATURE = bytes(64)


class Around(NamedTuple):
    """What every node of a world shares."""

    world: World
    network: Network
    chain: Chain
    tick: Duration
    """Between two ``Ticked``."""
    meter: Duration
    """Between two readings of each lease."""
    hosts: dict[NodeKey, Host]
    expiry_blocks: int = 1500
    """Of a new channel, from now."""
    unprepared: float = 0.0
    """Chance that a machine can't prepare a lease."""


class Node:
    def __init__(
        self, around: Around, name: NodeKey, sells: ProviderPolicy | None, buys: TenantPolicy | None
    ) -> None:
        self.name = name
        self.around, self.world, self.chain = around, around.world, around.chain
        self.sells, self.buys = sells, buys
        self.host = Host(name.hex()[:8], around.world.random)
        self.provider: Provider | None = Provider(sells) if sells else None
        self.tenant: Tenant | None = Tenant(name, buys) if buys else None
        self.alive = True
        self.lives = 0
        self.journal: dict[tuple[str, bytes], bytes] = {}
        self.peer_errors: Counter[str] = Counter()
        self.dies_in = 0
        """Crash after so many more journal writes, before their effects; 0: does not."""
        self._moments = Random(name.hex())
        """Of looks: a dice of its own, so that who looks changes nobody's luck."""
        self.proofs: list[proofs.Proof] = []
        """Against providers that contradicted themselves."""
        self._locked: set[chains.Coin] = set()
        self._busy_until: dict[LeaseId, Instant] = {}
        self._missing: dict[ChannelId, Instant] = {}
        self._asked: dict[ChannelId, tuple[bytes, Sat, SpendingTx | None]] = {}
        """Closes proposed to tenants: their nonces are in no journal."""
        around.network.join(name, self)
        around.hosts[name] = self.host

    def __repr__(self) -> str:
        return f"<Node {self.name.hex()[:8]} {'alive' if self.alive else 'down'}>"

    # -- life ------------------------------------------------------------------------------------------
    def start(self) -> None:
        offset = self.world.random.random()
        self.world.every(self.around.tick, self.tick, first=int(offset * self.around.tick))
        if self.provider is not None:
            self.world.every(self.around.meter, self.read_meters, first=int(offset * self.around.meter))
        self.look_at_chain()

    def crash(self) -> None:
        self.alive = False
        self.lives += 1

    def restart(self, *, reboot: bool = False) -> None:
        """From the journal alone."""
        self.alive, self._locked, self._missing, self._busy_until, self._asked = True, set(), {}, {}, {}
        self.dies_in = 0
        now = self.world.now
        self.host.reboot(now) if reboot else self.host.restart_meter(now)
        outstanding: list[want.AnyEffect] = []
        if self.sells is not None:
            sold = [records.decode_sold_lease(v) for v in self._rows(records.SOLD)]
            earning = [records.decode_channel(v) for v in self._rows(records.EARNING)]
            drain = next((records.decode_drain(v) for v in self._rows(records.DRAIN)), None)
            self.provider = selling.restore(self.sells, sold, earning, drain)
            outstanding += selling.outstanding(self.provider)
        if self.buys is not None:
            rented = [records.decode_rented_lease(v) for v in self._rows(records.RENTED)]
            paying = [records.decode_channel(v) for v in self._rows(records.PAYING)]
            self.tenant = renting.restore(self.name, self.buys, rented, paying)
            outstanding += renting.outstanding(self.tenant)
        self._perform(tuple(outstanding))
        self.look_at_chain()

    def _rows(self, kind: str) -> list[bytes]:
        return [value for (k, _), value in self.journal.items() if k == kind]

    def soon(self, delay: int, action: Callable[[], None]) -> None:
        """Do it later, unless this life has ended by then."""
        self.world.later(delay, partial(self._if_same_life, self.lives, action))

    def _if_same_life(self, life: int, action: Callable[[], None]) -> None:
        if self.alive and self.lives == life:
            action()

    # -- driver ----------------------------------------------------------------------------------------
    def tell(self, event: told.AnyEvent) -> None:
        """Both minds hear it; what is not theirs changes nothing."""
        if not self.alive:
            return
        self.tell_provider(event)
        self.tell_tenant(event)

    def tell_provider(self, event: told.AnyEvent) -> None:
        if self.provider is None or not self.alive:
            return
        before = self.provider
        after, effects = selling.step(before, event, self.world.now)
        if after is not before:
            self._write(records.changes(before, after))
            self.provider = after
        self._perform(effects)

    def tell_tenant(self, event: told.AnyEvent) -> None:
        if self.tenant is None or not self.alive:
            return
        before = self.tenant
        after, effects = renting.step(before, event, self.world.now)
        if after is not before:
            self._write(records.changes(before, after))
            self.tenant = after
        self._perform(effects)

    def _write(self, rows: list[records.Record]) -> None:
        for row in rows:
            self.journal[row.kind, row.key] = row.value
        if self.dies_in and rows:
            self.dies_in -= 1
            if not self.dies_in:
                self.crash()

    def tick(self) -> None:
        self.tell(told.Ticked())
        if self.provider is not None and self.alive:
            unseen = [
                c for c in self.provider.channels.values() if c.state is ChannelState.FUNDED and not c.seen
            ]
            for channel in unseen:
                self._look_at(channel, self.tell_provider)

    def read_meters(self) -> None:
        if self.provider is None or not self.alive:
            return
        for lease in [x.id for x in self.provider.leases.values() if x.state in METERED]:
            self._read(lease, final=False)

    def _read(self, lease: LeaseId, *, final: bool) -> None:
        reading = self.host.read(lease, self.world.now)
        if reading is not None:
            self.tell_provider(told.MeterRead(lease, reading, final))

    # -- edge ------------------------------------------------------------------------------------------
    def receive(self, sender: NodeKey, frame: bytes) -> None:
        if not self.alive:
            return
        try:
            message, envelope = say.decode_envelope(frame)
            self.hear(sender, message, envelope.signature)
        except PeerError as error:
            self.peer_errors[error.code] += 1

    def hear(self, sender: NodeKey, message: say.AnyMessage, signature: bytes) -> None:
        if not isinstance(message, say.FOR_PROVIDER):
            view = self._view(message.lease) if type(message) is Statement else None
            self.tell_tenant(told.Received(sender, message, signature, view))
            return
        try:
            self._check(sender, message)
            if type(message) is say.AgreeClose:
                self._take_half(sender, message)
                return
            key = our_key(self.name, message.channel) if type(message) is say.ProposeChannel else b""
            self.tell_provider(told.Received(sender, message, our_key=key))
        except PeerError as error:
            about = getattr(message, "lease", None) or getattr(message, "channel", None)
            if error.code in WORTH_A_WORD and about is not None:
                self.say(sender, say.Refusal(about, Reason(error.code, error.message)))
            raise

    def _check(self, sender: NodeKey, message: say.AnyMessage) -> None:
        if type(message) is say.OpenLease and message.signature != sign(self.name, message.quote):
            raise PeerError("quote.forged", "the quote does not carry our signature")
        if type(message) is say.Payment:
            channel = self.provider.channels.get(message.channel) if self.provider else None
            if channel is None or channel.peer != sender:
                raise PeerError("channel.unknown", "no such channel of yours here")
            if message.signature != sign_payment(channel, message.paid):
                raise PeerError("payment.forged", "not the tenant's signature over the template")

    def _view(self, lease: LeaseId) -> View:
        """Our own end of the tunnels counts the same bytes as the machine at the other one."""
        rented = self.tenant.leases.get(lease) if self.tenant else None
        host = self.around.hosts.get(rented.provider) if rented else None
        used = host.history.get(lease) if host else None
        return View(used.net_in_bytes, used.net_out_bytes, Duration(0)) if used else View(0, 0, Duration(0))

    # -- perform ---------------------------------------------------------------------------------------
    def _perform(self, effects: tuple[want.AnyEffect, ...]) -> None:
        for effect in effects:
            if not self.alive:
                return
            self.perform(effect)

    def perform(self, effect: want.AnyEffect) -> None:
        now, rand = self.world.now, self.world.random.random
        match effect:
            case want.Send(to=to, message=message):
                self.say(to, message)
            case want.Pay(to=to, channel=channel, paid=paid):
                self.pay(to, channel, paid)
            case want.Prepare():
                self._on_host(effect.lease, int((0.2 + 2 * rand()) * SECOND), partial(self._prepare, effect))
            case want.Pause(lease=lease):
                self.host.pause(lease, now)
            case want.Thaw(lease=lease):
                self.host.thaw(lease, now)
            case want.Finish(lease=lease):
                self._on_host(lease, 200 * MILLISECOND, partial(self._finish, lease))
            case want.Broadcast(raw=raw):
                self.chain.broadcast(raw)
            case want.PlanChannel(to=to, capacity=capacity):
                self.soon(int(rand() * SECOND), partial(self._plan, to, capacity))
            case want.Fund():
                self.soon(int(2 * rand() * SECOND), partial(self._fund, effect))
            case want.Moment(lease=lease, within=within):
                moment = int(self._moments.random() * within)
                self.soon(moment, partial(self.tell_tenant, told.MomentCame(lease)))
            case want.Look(lease=lease):
                self._look(lease)
            case want.Accuse():
                self.proofs.append(
                    proofs.make(
                        effect.provider,
                        (effect.first, effect.first_signature),
                        (effect.second, effect.second_signature),
                    )
                )
            case want.ProposeClose():
                self.soon(int(2 * rand() * SECOND), partial(self._propose, effect))
            case want.CoSign(to=to, proposal=proposal):
                self.soon(int(2 * rand() * SECOND), partial(self._co_sign, to, proposal))
            case want.Settle(channels=ids):
                self.soon(int(2 * rand() * SECOND), partial(self._settle, ids))
            case want.Refund(channel=channel):
                self.soon(int(2 * rand() * SECOND), partial(self._refund, channel))

    def _look(self, lease: LeaseId) -> None:
        """Through the same network as everything: a provider that is cut off shows nothing."""
        rented = self.tenant.leases.get(lease) if self.tenant else None
        host = self.around.hosts.get(rented.provider) if rented else None
        seen = host.look(lease, self.world.now) if host is not None else None
        if rented is None or seen is None or not self.around.network.reaches(self.name, rented.provider):
            self.soon(SECOND, partial(self.tell_tenant, told.LookFailed(lease, NOT_SEEN)))
        else:
            self.soon(SECOND, partial(self.tell_tenant, told.Looked(lease, seen)))

    def _on_host(self, lease: LeaseId, takes: int, work: Callable[[], None]) -> None:
        """The machine's work on one lease keeps its order."""
        begins = max(self.world.now, self._busy_until.get(lease, self.world.now))
        self._busy_until[lease] = Instant(begins + takes)
        self.soon(begins + takes - self.world.now, work)

    def say(self, to: NodeKey, message: say.AnyMessage) -> None:
        signature = b""
        if say.must_be_signed(message):
            signature = sign(self.name, message) if type(message) is Quote else ANY_SIGNATURE
        frame = say.encode_envelope(say.encode_body(message), signature)
        self.around.network.send(self.name, to, frame)

    def pay(self, to: NodeKey, channel: ChannelId, paid: Sat) -> None:
        assert self.tenant is not None
        signature = sign_payment(self.tenant.channels[channel], paid)
        self.say(to, say.Payment(channel, paid, signature))

    def _prepare(self, effect: want.Prepare) -> None:
        if self.world.random.random() < self.around.unprepared:
            self.tell_provider(told.HostFailed(effect.lease, Reason("host.failed", "no luck"), effect.limits))
            return
        self._read(effect.lease, final=False)  # what a growth is charged for begins here
        self.host.prepare(effect.lease, effect.limits, self.world.now)
        self.tell_provider(told.HostPrepared(effect.lease, limits=effect.limits))

    def _finish(self, lease: LeaseId) -> None:
        self.host.pause(lease, self.world.now)
        self._read(lease, final=True)
        self.host.teardown(lease)
        self.tell_provider(told.HostCleared(lease))

    def _plan(self, to: NodeKey, capacity: Sat) -> None:
        self.tell_tenant(told.ChannelPlanned(to, self.plan(capacity)))

    def plan(self, capacity: Sat) -> told.ChannelPlan:
        id_ = ChannelId(self.world.random.randbytes(16))
        key = our_key(self.name, id_)
        expiry = self.chain.height + self.around.expiry_blocks
        return told.ChannelPlan(id_, key, self.name, capacity, expiry)

    # -- coins -----------------------------------------------------------------------------------------
    def _fund(self, effect: want.Fund) -> None:
        needed = effect.terms.capacity + FUND_FEE
        coins = [c for c in self.chain.coins_of(self.name).items() if c[0] not in self._locked]
        chosen = next(((coin, value) for coin, value in coins if value >= needed + 330), None)
        if chosen is None:
            self.tell_tenant(told.FundingFailed(effect.channel, NO_COINS))
            return
        coin, value = chosen
        outputs = (Output(effect.channel, effect.terms.capacity), Output(self.name, Sat(value - needed)))
        tx = self.chain.build(chains.make((coin,), outputs, FUND_FEE))
        self._locked.add(coin)
        self.tell_tenant(told.FundingBuilt(effect.channel, tx.txid, 0, tx.raw, FUND_FEE))

    def _settle(self, ids: tuple[ChannelId, ...]) -> None:
        assert self.provider is not None
        ready = [c for c in (self.provider.channels[id_] for id_ in ids) if not c.settled_txid]
        before = {c.spending[-1].txid: c.spending[-1].fee for c in ready if c.spending}
        fee = Sat(CLOSE_FEE * len(ready) + sum(before.values()) * 3 // 2)
        mine = Sat(sum(c.paid for c in ready) - fee)
        if mine < 330:
            for channel in ready:
                self.tell_provider(told.SpendFailed(channel.id, NOT_WORTH_IT))
            return
        changes = tuple(Output(c.peer, Sat(c.terms.capacity - c.paid)) for c in ready)
        inputs = tuple((c.txid, c.vout) for c in ready)
        tx = self.chain.build(chains.make(inputs, (*changes, Output(self.name, mine)), fee))
        also = tuple(c.id for c in ready[1:])
        self.tell_provider(told.SpendBuilt(ready[0].id, SpendingTx(tx.txid, tx.raw, tx.fee), also))

    def _propose(self, effect: want.ProposeClose) -> None:
        assert self.provider is not None
        channel = self.provider.channels[effect.channel]
        fee = Sat(channel.spending[-1].fee * 3 // 2 if channel.spending else TOGETHER_FEE)
        mine = Sat(channel.paid - fee) if channel.paid - fee >= 330 else Sat(0)
        if not mine and not effect.give_back:
            self.tell_provider(told.SpendFailed(channel.id, NOT_WORTH_IT))
            return
        back = Output(channel.peer, Sat(channel.terms.capacity - fee - mine))
        outputs = (back, Output(self.name, mine)) if mine else (back,)
        tx = self.chain.build(chains.make(((channel.txid, channel.vout),), outputs, fee))
        nonce = b"\2" + blake2b(b"%d" % self.world.now, key=channel.id, digest_size=64).digest() + b"\2"
        self._asked[channel.id] = (nonce, channel.paid, SpendingTx(tx.txid, tx.raw, fee, given_back=not mine))
        self.say(channel.peer, say.ProposeClose(channel.id, channel.paid, b"", 1000, nonce))

    def _co_sign(self, to: NodeKey, proposal: ProposeClose) -> None:
        assert self.tenant is not None
        half = sign_half(self.tenant.channels[proposal.channel], proposal.nonce)
        self.tell_tenant(told.CoSigned(proposal.channel, proposal.nonce.hex()[:64]))
        if self.alive:
            self.say(to, say.AgreeClose(proposal.channel, proposal.nonce, proposal.nonce, half))

    def _take_half(self, sender: NodeKey, answer: AgreeClose) -> None:
        channel = self.provider.channels.get(answer.channel) if self.provider else None
        if channel is None or channel.peer != sender:
            raise PeerError("channel.unknown", "no such channel of yours here")
        nonce, paid, tx = self._asked.get(channel.id, (b"", Sat(0), None))
        if tx is None or nonce != answer.asked:
            return
        del self._asked[channel.id]
        if answer.signature != sign_half(channel, nonce):
            raise PeerError("close.partial", "not the tenant's half")
        self.tell_provider(told.CloseAgreed(channel.id, paid, tx))

    def _refund(self, id_: ChannelId) -> None:
        assert self.tenant is not None
        channel = self.tenant.channels[id_]
        fee = Sat(channel.spending[-1].fee * 3 // 2 if channel.spending else REFUND_FEE)
        back = Output(self.name, Sat(channel.terms.capacity - fee))
        tx = chains.make(((channel.txid, channel.vout),), (back,), fee, channel.terms.expiry_height)
        self._spend(channel, tx, self.tell_tenant)

    def _spend(self, channel: Channel, tx: chains.Tx, tell: Callable[[told.AnyEvent], None]) -> None:
        self.chain.build(tx)
        tell(told.SpendBuilt(channel.id, SpendingTx(tx.txid, tx.raw, tx.fee)))

    # -- chain watch -----------------------------------------------------------------------------------
    def look_at_chain(self) -> None:
        if not self.alive:
            return
        self.tell(told.BlockSeen(self.chain.height))
        for mind, tell in ((self.provider, self.tell_provider), (self.tenant, self.tell_tenant)):
            for channel in list(mind.channels.values()) if mind else ():
                if channel.is_watched_at(self.chain.height):
                    self._look_at(channel, tell)

    def _look_at(self, channel: Channel, tell: Callable[[told.AnyEvent], None]) -> None:
        coin = (channel.txid, channel.vout)
        output = self.chain.coin(coin)
        if output is not None:
            self._missing.pop(channel.id, None)
            if output != Output(channel.id, channel.terms.capacity):
                tell(told.FundingGone(channel.id, Reason("channel.value", "another output")))
                return
            depth = self.chain.depth(channel.txid) or 0
            shaken = channel.state in (ChannelState.FUNDED, ChannelState.ABANDONED) or channel.settled_txid
            if depth != channel.confirmations or shaken:
                tell(told.FundingSeen(channel.id, depth))
            return
        spender = self.chain.spender(coin)
        if spender is not None:
            tell(told.SpendSeen(channel.id, spender, self.chain.depth(spender) or 0))
            return
        if channel.settled_txid:
            tell(told.SpendSeen(channel.id, channel.settled_txid, 0))
        if self.chain.depth(channel.txid) is None:
            if channel.seen:
                tell(told.FundingMissed(channel.id))
            missing = self._missing.setdefault(channel.id, self.world.now)
            if since(missing, self.world.now) > MISSING_MAX:
                tell(told.FundingGone(channel.id, Reason("channel.funding-lost", "nobody knows it")))


def our_key(name: NodeKey, channel: bytes) -> bytes:
    """A 33-byte stand-in for the channel's public key."""
    return b"\2" + blake2b(name + channel, digest_size=32).digest()


def sign(name: NodeKey, message: say.AnyMessage) -> bytes:
    """Only the node itself calls it: nobody in the world forges but on purpose."""
    return blake2b(say.encode_body(message), key=name, digest_size=64).digest()


def sign_payment(channel: Channel, paid: Sat) -> bytes:
    template = b"%b %b %d" % (channel.terms.tenant_key, channel.txid.encode(), paid)
    return blake2b(template, key=channel.terms.tenant_key, digest_size=64).digest()


def sign_half(channel: Channel, nonce: bytes) -> bytes:
    return blake2b(nonce, key=channel.terms.tenant_key, digest_size=32).digest()
