"""A node that a service manager watches: it is told when we are up, what we do, and that we are not stuck.

Counterpart: the unit of ``dockage service install`` (``Type=notify``, ``WatchdogSec=``). The rule: we say that we are
alive only after our own work has gone on since the last time; a node that hangs falls silent and is started anew.
"""

from __future__ import annotations

import asyncio
import faulthandler
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dockage.domain.lease import METERED
from dockage.ports.machine import Supervisor

from .driver import Driver
from .node import Node

TOLD_EVERY_SEC = 30.0
"""Where nobody watches: how old the status may be."""
FED = 3
"""Times within the watchdog's limit, so that one that is late costs nothing."""
LOOK_SEC = 0.1


async def supervised(node: Node, socket: Path, manager: Supervisor) -> None:
    """Until cancelled, or at once where there is no service manager. *socket*: of the control API."""
    if not manager.is_there:
        return
    if manager.watchdog_sec:
        faulthandler.enable()  # it ends us by SIGABRT: the log then says where we hung
    minds = [mind for mind in (node.provider, node.tenant) if mind is not None]
    try:
        await _answers(socket)
        manager.tell("READY=1", f"STATUS={_status(node)}")
        await keep_telling(minds, manager, lambda: _status(node))
    finally:
        manager.tell("STOPPING=1")


async def keep_telling(minds: Iterable[Driver[Any]], manager: Supervisor, status: Callable[[], str]) -> None:
    """Until cancelled; silent for as long as one of *minds* is stuck. Each has a tick a second to do."""
    while True:
        for mind in minds:
            await mind.moved()
        manager.tell("WATCHDOG=1", f"STATUS={status()}")
        await asyncio.sleep(manager.watchdog_sec / FED or TOLD_EVERY_SEC)


async def _answers(socket: Path) -> None:
    while True:
        try:
            _, writer = await asyncio.open_unix_connection(socket)
        except OSError:  # not there yet, or of a node that was killed
            await asyncio.sleep(LOOK_SEC)
            continue
        writer.close()
        return


def _status(node: Node) -> str:
    sold = _running(node.provider.newest.leases.values()) if node.provider else 0
    rented = _running(node.tenant.newest.leases.values())
    return f"{sold} leases sold, {rented} rented"


def _running(leases: Iterable[Any]) -> int:
    return sum(lease.state in METERED for lease in leases)
