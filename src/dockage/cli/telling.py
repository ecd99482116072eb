"""What the daemon says it is doing, while a command waits for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dockage.domain.errors import DockageError

from .client import Client
from .session import Session

POLL_SEC = 1.0


@contextmanager
def telling(session: Session, deployment: str) -> Iterator[None]:
    """What the daemon does for *deployment* meanwhile, a line whenever it changed: a call only waits."""
    done = threading.Event()

    def watch() -> None:
        said = ""
        while not done.wait(POLL_SEC):
            with suppress(DockageError):
                steps = Client(session.home).get("progress")["deployments"]
                step = next((one["step"] for one in steps if one["deployment"] == deployment), "")
                if step and step != said:
                    session.say(said := step)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join(POLL_SEC)
