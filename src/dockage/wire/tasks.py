"""Tasks for what somebody outside begins: a connection or a datagram that comes in."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


def spawn(tasks: asyncio.TaskGroup, job: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """None, and nothing runs, if the group is ending: a connection may be accepted just then."""
    try:
        return tasks.create_task(job)
    except RuntimeError:
        job.close()
        return None
