"""Proofs against providers as files of the node's folder."""
