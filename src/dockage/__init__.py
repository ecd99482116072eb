"""A peer-to-peer cloud for containers."""
