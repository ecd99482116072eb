"""The tenant's images on their way to a provider: taken apart by content once, then only what is missing travels.
Without a Docker engine they are loaded or pulled into a store of our own.
"""

from .left import LeftImages, WithLeft
from .local import EngineImages
from .own import OwnImages
from .pulling import Pulling
from .sender import ImageSender
from .trust import CERTS

__all__ = ["CERTS", "EngineImages", "ImageSender", "LeftImages", "OwnImages", "Pulling", "WithLeft"]
