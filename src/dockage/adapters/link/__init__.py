"""The peer link over iroh (QUIC): authenticated connections by key, NAT traversal, relays of our own."""

from .link import IrohLink

__all__ = ["IrohLink"]
