"""A tenant and a provider with wallets of their own on a real node, and the channels between them."""

from __future__ import annotations

import secrets

from bitcoin.node import RegtestWorld
from dockage.adapters.secp import ChannelKeys, Secp
from dockage.domain.channel import Terms
from dockage.domain.units import Sat
from dockage.ports.chain import Outpoint, Wallet
from dockage.protocol.bitcoin.channel import Commitment
from dockage.protocol.bitcoin.curve import Part
from dockage.protocol.bitcoin.script import funding
from dockage.protocol.bitcoin.settlement import Claim
from dockage.protocol.bitcoin.together import agreement
from dockage.protocol.bitcoin.tx import Tx, parse

RATE = 2000
CURVE = Secp()


class Life:
    def __init__(self, world: RegtestWorld, tenant: Wallet, provider: Wallet) -> None:
        self.world, self.chain = world, world.chain
        self.tenant, self.provider = tenant, provider
        self.tenant_keys = ChannelKeys(secrets.token_bytes(32), CURVE)
        self.provider_keys = ChannelKeys(secrets.token_bytes(32), CURVE)
        self.funding_fee = 0
        self.opened: Tx
        """The newest funding."""

    async def terms(self, name: bytes, capacity: int, blocks: int) -> Terms:
        return Terms(
            self.tenant_keys.public("tenant", name),
            self.provider_keys.public("provider", name),
            await self.chain.height() + blocks,
            Sat(capacity),
            await self.tenant.script(),
        )

    async def open(self, *terms: Terms, mined: int = 1) -> list[Commitment]:
        """All in one transaction, confirmed once."""
        outputs = [(funding(one, CURVE).script, one.capacity) for one in terms]
        tx = await self.tenant.fund(outputs, RATE)
        self.funding_fee += tx.fee
        await self.chain.broadcast(tx.raw)
        await self.world.mine(mined)
        self.opened = parse(tx.raw)
        vouts = [self.opened.find(*output) for output in outputs]
        assert None not in vouts
        return [
            Commitment(one, Outpoint(tx.txid, vout or 0), CURVE)
            for one, vout in zip(terms, vouts, strict=True)
        ]

    def pay(self, name: bytes, commitment: Commitment, *totals: int) -> Claim:
        """Each update as the provider takes it; the claim of the last."""
        sign, paid, signature = self.tenant_keys.signer("tenant", name), 0, b""
        for total in totals:
            signature = commitment.pay(Sat(total), sign)
            commitment.check_payment(Sat(paid), Sat(total), signature)
            paid = total
        return Claim(commitment, Sat(paid), signature, self.provider_keys.signer("provider", name))

    async def together(self, name: bytes, commitment: Commitment, paid: int, rate: int = RATE) -> Tx:
        """The close by both, signed by each over what it built itself."""
        script = await self.provider.script()
        theirs, ours = (agreement(commitment, Sat(paid), script, rate) for _ in range(2))
        tenant = self.tenant_keys.half("tenant", name, theirs.joint)
        provider = self.provider_keys.half("provider", name, ours.joint)
        terms = commitment.terms
        return ours.signed(
            CURVE,
            Part(terms.tenant_key, tenant.nonce, tenant.sign(provider.nonce)),
            Part(terms.provider_key, provider.nonce, provider.sign(tenant.nonce)),
        )
