"""A light client as ``Chain`` and ``Wallet``: compact block filters (BIP157, BIP158) by BDK, no node of one's own.

Needs the extra ``wallet`` (bdkpython). Counterpart: ``adapters/bitcoind``; both pass the same contract.
"""

from .chain import LightChain
from .node import LightNode
from .seed import Birthday, Seed, SeedFile, read_birthday
from .wallet import LightWallet

__all__ = ["Birthday", "LightChain", "LightNode", "LightWallet", "Seed", "SeedFile", "read_birthday"]
