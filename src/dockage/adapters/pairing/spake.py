"""SpakeSide: the Pake port by SPAKE2 over Ed25519 (Abdalla and Pointcheval 2005; ``spake2``, as in magic-wormhole)."""

from __future__ import annotations

from spake2 import SPAKE2_A, SPAKE2_B

from dockage.domain.errors import PeerError


class SpakeSide:
    """*first*: whether we are the first of *parties*. About 50 ms of CPU a side."""

    def __init__(self, password: str, parties: tuple[bytes, bytes], *, first: bool) -> None:
        side = SPAKE2_A if first else SPAKE2_B
        self._side = side(password.encode(), idA=parties[0], idB=parties[1])
        self._message: bytes = self._side.start()

    @property
    def message(self) -> bytes:
        return self._message

    def finish(self, theirs: bytes) -> bytes:
        try:
            secret: bytes = self._side.finish(theirs)
        except Exception as error:  # the library has a class of its own for each kind of odd point
            raise PeerError("link.malformed", f"not a message of SPAKE2: {type(error).__name__}") from None
        return secret
