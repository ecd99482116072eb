"""The tenant's images on their way to a provider: split by content once, then only what is missing travels."""

from .sender import ImageSender

__all__ = ["ImageSender"]
