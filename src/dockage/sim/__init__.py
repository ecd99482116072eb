"""A deterministic world around the real minds: thousands of nodes, simulated time, every kind of bad luck.

Counterpart: ``daemon/``, which does the same with real parts. The one rule: all chance comes from the world's
one seeded generator and all order from its one queue, so that a seed is a whole history.
"""
