"""The password-authenticated key exchange of two machines that are linked."""

from .spake import SpakeSide

__all__ = ["SpakeSide"]
