"""The provider's machine: what a lease has on it besides the Engine API (that is ``adapters/engine``).

``DockerHost`` is the port; one module per resource beside it. The rule for all of them: names follow from the
lease id, and making or removing twice is the same as once, because recovery does exactly that.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .host import DockerHost

__all__ = ["DockerHost"]


def __getattr__(name: str) -> Any:
    """Only when it is asked for: a single part, as the cgroup, then needs none of the libraries of the others."""
    if name == "DockerHost":
        from .host import DockerHost

        return DockerHost
    raise AttributeError(name)
