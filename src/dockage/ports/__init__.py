"""What the daemon needs from the outside world: one Protocol each, by role.

Adapters implement them; ``daemon/system.py`` and its parts alone know which adapter stands behind which port. Each
port says its limits: what may block, for how long, and which error means what. ``UsageError`` and
``Unavailable`` (domain/errors.py) are the only exceptions that cross a port, besides cancellation.
"""
