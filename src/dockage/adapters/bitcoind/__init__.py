"""A bitcoind (Core, Knots) as ``Chain`` and ``Wallet``, over its JSON-RPC. For tests and serious providers."""

from .chain import BitcoindChain
from .rpc import Rpc, RpcAddress
from .wallet import BitcoindWallet

__all__ = ["BitcoindChain", "BitcoindWallet", "Rpc", "RpcAddress"]
