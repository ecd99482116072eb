"""The node's identity on disk."""

from .files import FileKeys

__all__ = ["FileKeys"]
