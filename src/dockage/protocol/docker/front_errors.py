"""Refusals in the Docker Engine's own words: clients read the status and match the text."""

from __future__ import annotations

from dockage.domain.errors import DockageError, PeerError, Unavailable, UsageError

from .refusal import Refused


class ApiError(UsageError):
    """An answer ``{"message": ...}`` with *status*, as the Engine API gives it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"docker.{status}", message)
        self.status = status


def no_container(ref: str) -> ApiError:
    return ApiError(404, f"No such container: {ref}")


def no_image(ref: str) -> ApiError:
    """The text after which a client pulls; it looks for "No such image"."""
    tagged = ":" in ref.rpartition("/")[2] or "@" in ref
    return ApiError(404, f"No such image: {ref if tagged else ref + ':latest'}")


def no_network(ref: str) -> ApiError:
    return ApiError(404, f"network {ref} not found")


def no_volume(ref: str) -> ApiError:
    return ApiError(404, f"get {ref}: no such volume")


def ambiguous(ref: str) -> ApiError:
    return ApiError(400, f"multiple IDs found with provided prefix: {ref}")


def name_taken(name: str, holder: str) -> ApiError:
    return ApiError(
        409,
        f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
        "You have to remove (or rename) that container to be able to reuse that name.",
    )


def ended(name: str, reason: str) -> ApiError:
    return ApiError(409, f"the lease of container {name} has ended: {reason}")


CONFLICTS = frozenset(
    {"lease.conflict", "deployment.conflict", "channel.small", "volume.busy", "image.conflict"}
)
"""Codes of UsageErrors that another state of the tenant's own things would cure: 409, not 400."""


def status_of(error: DockageError) -> int:
    match error:
        case ApiError() | Refused():
            return error.status
        case UsageError():
            return 409 if error.code in CONFLICTS else 400
        case Unavailable():
            return 503
        case PeerError():
            return 502
        case _:
            return 500
