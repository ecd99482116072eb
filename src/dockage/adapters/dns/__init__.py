"""The name server of a gateway, on the network: UDP and TCP."""

from .probe import is_up
from .server import DnsServer, Limits, Respond

__all__ = ["DnsServer", "Limits", "Respond", "is_up"]
