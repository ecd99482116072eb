"""Whose fault is it, and what now: the first question in a market of strangers.

``PeerError``   the other side broke the protocol: counted, the connection may be closed, state is unchanged.
``UsageError``  our own user can mend it: the message says how.
Anything else is a bug: it crashes the machine it happens in, not the daemon.
"""

from __future__ import annotations


class DockageError(Exception):
    """Carries a stable ``code`` (dotted, lower case) and a sentence for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.code}: {self.message}>"


class PeerError(DockageError):
    """The peer sent something the protocol does not allow."""


class UsageError(DockageError):
    """Our user asked for something that cannot be had; the message says what would work."""


class Unavailable(DockageError):
    """A part we depend on (engine, chain node, peer) does not answer now; trying again later may work."""
