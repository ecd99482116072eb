"""Neighbours on the local network, over multicast DNS."""

from .neighbours import LanNeighbours

__all__ = ["LanNeighbours"]
