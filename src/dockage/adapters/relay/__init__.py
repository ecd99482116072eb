"""A relay for peers that cannot reach each other: iroh's relay protocol over WebSocket (aiohttp)."""

from .relay import Relay

__all__ = ["Relay"]
