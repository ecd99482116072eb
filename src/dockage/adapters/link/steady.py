"""The transport's UDP socket stays open while network interfaces of the machine come and go.

The transport listens to the kernel and, at each change of any interface, closes its socket and opens it again at the
same port: datagrams that wait in it are lost, every path is probed anew, and if this process is about to start a
program just then, the child still has the old socket, the port is in use, and the transport gives up for good. A
provider's interfaces change with every container (seen under load; tests/link/test_steady.py). So what it listens to
is taken away there. A socket goes on working through a change; where others see us now, daemon/whereabouts.py asks
them. What is lost: after a change of the machine's own address, streams break within 8 s and are dialled anew, where
they would be kept.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from pathlib import Path

OWN = Path("/proc/self/fd")
TRIES, TRY_SEC = 100 if OWN.exists() else 0, 0.02
SOL_NETLINK, NETLINK_DROP_MEMBERSHIP = 270, 2
"""linux/socket.h, linux/netlink.h; Python names neither."""


def subscriptions() -> set[int]:
    """Descriptors of this process that the kernel tells of changes of the network; none where it is not Linux."""
    found = set()
    with suppress(OSError):
        for entry in OWN.iterdir():
            with suppress(OSError):  # closed meanwhile, or no socket
                if _groups(int(entry.name)):
                    found.add(int(entry.name))
    return found


async def unsubscribe(others: set[int]) -> None:
    """As soon as the transport has subscribed, which a task of its own does; *others* were there before. Its descriptor
    stays open: it is not ours."""
    for _ in range(TRIES):
        if ears := subscriptions() - others:
            return _drop(ears)
        await asyncio.sleep(TRY_SEC)


def _drop(descriptors: set[int]) -> None:
    for descriptor in descriptors:
        with suppress(OSError), _borrowed(descriptor) as ear:
            for group in _groups(descriptor):
                ear.setsockopt(SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, group)


def _groups(descriptor: int) -> list[int]:
    """What it is subscribed to. Raises OSError if it is no socket."""
    with _borrowed(descriptor) as ear:
        if ear.family != socket.AF_NETLINK:
            return []
        _port, mask = ear.getsockname()
        return [bit + 1 for bit in range(32) if mask >> bit & 1]


def _borrowed(descriptor: int) -> socket.socket:
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
