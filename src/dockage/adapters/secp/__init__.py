"""secp256k1 by libsecp256k1: ``Curve`` behind two independent bindings, and the keys of channels."""

from .btclib import Secp
from .keys import ChannelKeys, channel_secret

__all__ = ["ChannelKeys", "Secp", "channel_secret"]
