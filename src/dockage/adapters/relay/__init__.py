"""A relay for peers that cannot reach each other: iroh's relay protocol over WebSocket (aiohttp)."""

from .probe import RelayProbe
from .relay import Relay

__all__ = ["Relay", "RelayProbe"]
