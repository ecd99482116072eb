"""Nodes that cheat. They run the real minds and lie at the edge, as a modified client would.

The one rule: a cheat may harm itself; what it takes from others is bounded, and a test says by how much.
"""

from __future__ import annotations

import msgspec

from dockage.domain.identity import ChannelId, NodeKey
from dockage.domain.pricing import price
from dockage.domain.statement import GENESIS, Statement, digest
from dockage.domain.units import Sat
from dockage.domain.usage import Usage
from dockage.node import effects as want
from dockage.protocol import messages as say

from . import chain as chains
from .chain import Output
from .node import FUND_FEE, Node


class Overbiller(Node):
    """States three times what was used, with the arithmetic and the chain in order."""

    factor = 3
    lines = Usage.__struct_fields__

    def say(self, to: NodeKey, message: say.AnyMessage) -> None:
        super().say(to, self._exaggerated(message) if type(message) is Statement else message)

    def _exaggerated(self, statement: Statement) -> Statement:
        assert self.provider is not None
        usage = statement.usage
        more = msgspec.structs.replace(
            usage, **{name: getattr(usage, name) * self.factor for name in self.lines}
        )
        tariff = self.provider.leases[statement.lease].tariff
        said = self.__dict__.setdefault("said", {})
        previous = said.get(statement.lease)
        lie = msgspec.structs.replace(
            statement,
            usage=more,
            due=price(more, tariff),
            previous=digest(previous) if previous else GENESIS,
        )
        said[statement.lease] = lie
        return lie


class CpuDoubler(Overbiller):
    """States twice the CPU that was used, and nothing else: where a lease is half idle that is quite possible."""

    factor = 2
    lines = ("cpu_ns",)


class Skimper(Node):
    """Sells cores and gives halves; its bills are true."""

    def start(self) -> None:
        self.host.given = 0.5
        super().start()


class Forker(Node):
    """States one thing, and a moment later another with the same number."""

    def say(self, to: NodeKey, message: say.AnyMessage) -> None:
        super().say(to, message)
        if type(message) is Statement:
            super().say(to, msgspec.structs.replace(message, containers=message.containers + 1))


class Freeloader(Node):
    """Opens channels and leases, and never pays."""

    def pay(self, to: NodeKey, channel: ChannelId, paid: Sat) -> None:
        pass


class Forger(Node):
    """Pays with a signature that is not over what it says."""

    def pay(self, to: NodeKey, channel: ChannelId, paid: Sat) -> None:
        self.say(to, say.Payment(channel, paid, b"\1" * 64))


class DoubleSpender(Node):
    """Lets a funding be seen in the mempool, rents on credit, and spends the coins elsewhere."""

    def perform(self, effect: want.AnyEffect) -> None:
        super().perform(effect)
        if isinstance(effect, want.Broadcast) and effect.raw.decode() in self.chain.mempool:
            funding = self.chain.mempool[effect.raw.decode()]
            value = sum(output.value for output in funding.outputs) + FUND_FEE
            fee = Sat(FUND_FEE * 4)
            back = chains.make(funding.inputs, (Output(self.name, Sat(value - fee)),), fee)
            self.soon(30_000_000_000, lambda: self.chain.broadcast(self.chain.build(back).raw))


class Babbler(Node):
    """Answers everything with noise: truncated frames, wrong kinds, absurd values."""

    def say(self, to: NodeKey, message: say.AnyMessage) -> None:
        super().say(to, message)
        noise = self.world.random.randbytes(self.world.random.randrange(200))
        frame = say.encode_envelope(say.encode_body(message))
        for junk in (noise, frame[: len(frame) // 2], frame + noise, say.encode_envelope(noise)):
            self.around.network.send(self.name, to, junk)
