"""What is being done for our user's deployments just now: looking for a provider, opening a channel, sending an image.

The Engine API has no word for it while ``docker`` waits; ``dockage up`` asks here and says it.
"""

from __future__ import annotations

from collections import OrderedDict

REMEMBERED = 256


class Steps:
    def __init__(self) -> None:
        self._lines: OrderedDict[str, str] = OrderedDict()

    def tell(self, deployment: str, line: str) -> None:
        """An empty line: it is done, or given up."""
        self._lines.pop(deployment, None)
        if line:
            self._lines[deployment] = line
        if len(self._lines) > REMEMBERED:
            self._lines.popitem(last=False)

    def all(self) -> dict[str, str]:
        """By deployment, the newest last."""
        return dict(self._lines)
