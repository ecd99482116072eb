"""What the service manager that started us is told: sd_notify(3), a line of text each in a datagram.

The rule: telling never fails and never waits. Who does not listen is not our concern.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress


class Notifier:
    """*address*: a path, or a name that begins with ``@`` (an abstract one); "" tells nobody. Port: ``Supervisor``."""

    def __init__(self, address: str = "", watchdog_sec: float = 0.0) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_sec = watchdog_sec

    @property
    def is_there(self) -> bool:
        return bool(self._address)

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str]) -> Notifier:
        """As said in *environ*. It is taken out of there: what we start must not speak for us."""
        address = environ.pop("NOTIFY_SOCKET", "")
        micros, whose = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        watched = micros.isdecimal() and whose in ("", str(os.getpid()))
        return cls(address, int(micros) / 1e6 if watched else 0.0)

    def tell(self, *lines: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.setblocking(False)
            speaker.sendto("\n".join(lines).encode(), self._address)
