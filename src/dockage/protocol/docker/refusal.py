"""What the filter answers when it says no: an HTTP status and a sentence which says what would work."""

from __future__ import annotations

from typing import NamedTuple

from dockage.domain.errors import PeerError


class Refused(PeerError):
    """400 for a body that asks for what the market cannot give, 403 for an endpoint that a lease does not
    have, 404 for what is not in this lease (whether or not it exists elsewhere: the answer is the same)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__("engine.refused", message)
        self.status = status


class Refusal(NamedTuple):
    """One field of a request body that cannot be honoured, and why."""

    field: str
    """As in the Engine API: ``HostConfig.Privileged``."""
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


def not_found(kind: str, reference: str) -> Refused:
    """The engine's own words, since clients look for them."""
    return Refused(404, f"No such {kind}: {reference[:200]}")
