"""Finding market nodes through the BitTorrent Mainline DHT (``libtorrent``, extra ``mainline``)."""

from .square import MainlineSquare

__all__ = ["MainlineSquare"]
