"""A peer-to-peer cloud for containers."""

__version__ = "0.1.0"
