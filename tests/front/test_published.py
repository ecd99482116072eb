"""A published port has one listener, whoever wants it open at the same moment."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from dockage.adapters.front.published import Published
from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.ports.renting import Leases
from dockage.protocol.docker.front_state import Container, Publish

NOBODY = cast(Leases, None)
WEB = Container(
    "web" * 21 + "w", "web", "shop", LeaseId(b"L" * 16), "r", "app", Resources(), b"{}", ports=(Publish(80),)
)


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


async def test_two_who_open_it_at_once_open_it_once() -> None:
    """Its start, and the event that tells of it."""
    async with asyncio.TaskGroup() as tasks:
        published = Published(NOBODY, tasks, "127.0.0.1")
        both = await asyncio.gather(published.open(WEB), published.open(WEB))
        assert both[0] == both[1] == tuple(port for _, port in published.bound(WEB.id)["80/tcp"])
        published.close_all()
        assert not await listens(both[0][0])


@pytest.mark.parametrize("turns", range(8))
async def test_what_is_closed_while_it_opens_is_closed(turns: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        published = Published(NOBODY, tasks, "127.0.0.1")
        opening = tasks.create_task(published.open(WEB))
        for _ in range(turns):
            await asyncio.sleep(0)
        began = bool(turns)
        published.close(WEB.id)
        ports = await opening
        if began:
            assert not published.is_open(WEB.id)
            assert not any([await listens(port) for port in ports])
        published.close_all()
