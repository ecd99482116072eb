"""The tests' bitcoind, for nodes in namespaces: the file system is one for all, so a unix socket leads out of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dockage.wire.splice import SocketStream, splice


@contextmanager
def bridge(path: str, port: int) -> Iterator[None]:
    """What connects to *path* is at 127.0.0.1:*port* of this namespace."""
    loop, stop, up = asyncio.new_event_loop(), asyncio.Event(), threading.Event()

    async def out(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        away = SocketStream(*await asyncio.open_connection("127.0.0.1", port))
        await splice(SocketStream(reader, writer), away)

    async def serve() -> None:
        async with await asyncio.start_unix_server(out, path):
            up.set()
            await stop.wait()
        held = asyncio.all_tasks() - {asyncio.current_task()}
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        await asyncio.sleep(0)  # what they closed is gone a turn later

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert up.wait(10)
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
