from bitcoin.node import bitcoind

__all__ = ["bitcoind"]
