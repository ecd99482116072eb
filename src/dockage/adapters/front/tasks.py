"""What the front starts for others: see ``wire/tasks.py``."""

from dockage.wire.tasks import spawn

__all__ = ["spawn"]
