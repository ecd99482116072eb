"""What the bitcoin tests share: two parties with fixed keys, and one channel between them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dockage.adapters.secp import Secp
from dockage.domain.channel import Terms
from dockage.domain.units import Sat
from dockage.protocol.bitcoin.channel import Commitment
from dockage.protocol.bitcoin.script import taproot_script
from dockage.protocol.bitcoin.settlement import Claim

VECTORS = Path(__file__).parent / "vectors"
SPEC_VECTORS = Path(__file__).parents[2] / "docs" / "spec" / "vectors"
TENANT = bytes([1]) * 32
PROVIDER = bytes([2]) * 32
OUTPOINT = ("ab" * 32, 1)
CHANGE = taproot_script(bytes([7]) * 32)
PAYOUT = taproot_script(bytes([8]) * 32)


def vectors(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


class Coin(NamedTuple):
    value: Sat
    script: bytes
    confirmations: int = 1
    coinbase: bool = False


class Pair:
    """Both sides of one channel."""

    def __init__(
        self,
        capacity: int = 200_000,
        expiry: int = 900_000,
        *,
        outpoint: tuple[str, int] = OUTPOINT,
        tenant: bytes = TENANT,
        provider: bytes = PROVIDER,
        change: bytes = CHANGE,
    ) -> None:
        self.curve = Secp()
        self.tenant, self.provider = partial(self.curve.sign, tenant), partial(self.curve.sign, provider)
        self.terms = Terms(
            self.curve.pubkey(tenant), self.curve.pubkey(provider), expiry, Sat(capacity), change
        )
        self.commitment = Commitment(self.terms, outpoint, self.curve)

    def pay(self, paid: int) -> bytes:
        return self.commitment.pay(Sat(paid), self.tenant)

    def claim(self, paid: int) -> Claim:
        return Claim(self.commitment, Sat(paid), self.pay(paid), self.provider)

    def coin(self, confirmations: int = 1) -> Coin:
        return Coin(self.terms.capacity, self.commitment.funding.script, confirmations)
