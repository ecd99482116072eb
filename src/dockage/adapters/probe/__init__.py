"""Looks into our own leases: counters by exec, work by a small program in a container of its own."""
