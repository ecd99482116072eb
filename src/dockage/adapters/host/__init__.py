"""The provider's machine: what a lease has on it besides the Engine API (that is ``adapters/engine``).

``DockerHost`` is the port; one module per resource beside it. The rule for all of them: names follow from the
lease id, and making or removing twice is the same as once, because recovery does exactly that.
"""

from .host import DockerHost

__all__ = ["DockerHost"]
