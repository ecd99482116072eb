"""The market's directory: a Kademlia of validated, expiring records over the peer link."""

from .directory import KademliaDirectory
from .limits import Limits

__all__ = ["KademliaDirectory", "Limits"]
