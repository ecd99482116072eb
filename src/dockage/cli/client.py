"""Talks to this home's daemon over ``control.sock``. Counterpart: ``daemon/control.py``.

Standard library only, so that a command starts at once. The rule: every answer is a value or one of the three
errors of ``errors.py``; every call has a limit.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .errors import NotRunning, Unavailable, UsageError

SOCKET = "control.sock"
TIMEOUT = 60.0
"""Seconds. The longest call looks through the market: asked again for 35 s, and the last time takes 20 s at most."""
SOCKET_PATH_MAX = 103
"""Bytes; Linux takes 107, macOS 103."""
ANSWER_MAX = 64 << 20

Json = dict[str, Any]


class Client:
    def __init__(self, home: Path) -> None:
        self._home = home

    def get(self, *path: str, timeout: float = TIMEOUT) -> Json:
        return self._ask("GET", path, None, timeout)

    def post(self, *path: str, body: Json | None = None, timeout: float = TIMEOUT) -> Json:
        """Raises NotRunning, UsageError or Unavailable."""
        return self._ask("POST", path, json.dumps(body or {}).encode(), timeout)

    def _ask(self, method: str, path: tuple[str, ...], body: bytes | None, timeout: float) -> Json:
        connection = UnixConnection(str(self._home / SOCKET), timeout)
        try:
            connection.request(method, "/v1/" + "/".join(quote(part, safe="") for part in path), body)
            answer = connection.getresponse()
            return _read(answer.status, answer.read(ANSWER_MAX))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise not_running(self._home) from None
        except PermissionError:
            raise UsageError("daemon.foreign", f"{self._home} belongs to another user's daemon") from None
        except TimeoutError:
            raise Unavailable("daemon.slow", f"the daemon did not answer within {timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(
                "daemon.broken", f"the daemon hung up: {error or type(error).__name__}"
            ) from None
        finally:
            connection.close()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("dockage", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _read(status: int, data: bytes) -> Json:
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Unavailable("daemon.failed", f"the daemon failed with status {status}; its log says why")
    if status == 200:
        return value
    code, message = str(value.get("code", "daemon.failed")), str(value.get("message", f"status {status}"))
    raise (UsageError if status in (400, 404) else Unavailable)(code, message)


def not_running(home: Path) -> NotRunning:
    return NotRunning(
        "daemon.not-running",
        f"no daemon runs at {home}: start it with `dockage daemon --detach`, or `dockage provide` to sell",
    )


def check_home(home: Path) -> Path:
    """Raises UsageError("home.too-long") where a unix socket could not be made."""
    if len(os.fsencode(home / "control.sock")) > SOCKET_PATH_MAX:
        raise UsageError(
            "home.too-long", f"the path {home} is too long for a unix socket; use a shorter --home"
        )
    return home
