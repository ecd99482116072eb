"""The peer link over iroh (QUIC): authenticated connections by key, NAT traversal, relays of our own."""

from .limits import Limits
from .link import IrohLink

__all__ = ["IrohLink", "Limits"]
