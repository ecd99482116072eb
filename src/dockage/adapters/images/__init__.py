"""The tenant's images on their way to a provider: taken apart by content once, then only what is missing travels."""

from .left import LeftImages, WithLeft
from .local import EngineImages
from .own import OwnImages
from .sender import ImageSender

__all__ = ["EngineImages", "ImageSender", "LeftImages", "OwnImages", "WithLeft"]
