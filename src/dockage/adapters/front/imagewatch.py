"""What happens to images happens at the tenant's own engine; here it joins the events of everything else."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import structlog

from dockage.domain.errors import DockageError
from dockage.protocol.docker.front_errors import ApiError

from .engines import target
from .hub import EventHub
from .local import LocalEngine

log = structlog.get_logger("dockage.front")

EVENTS = target("/events", {"filters": '{"type":["image","builder"]}'})
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds between attempts to reach it."""


async def follow_images(local: LocalEngine, hub: EventHub) -> None:
    """Until cancelled; at once over where there is no engine. What happens while it is out of reach is not told."""
    pause = FIRST_PAUSE
    while True:
        try:
            async with aclosing(local.lines(EVENTS)) as lines:
                async for event in lines:
                    pause = FIRST_PAUSE
                    if isinstance(event.get("timeNano"), int):
                        hub.publish(event)
        except ApiError:
            return
        except DockageError as error:
            log.debug("images.unheard", code=error.code, why=error.message)
        await asyncio.sleep(pause)
        pause = min(LONGEST_PAUSE, 2 * pause)
