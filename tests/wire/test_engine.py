"""Connections to an engine that are kept: one that it has closed meanwhile costs a question nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from dockage.domain.errors import Unavailable
from dockage.wire.engine import EngineClient

ANSWER = (
    b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 21\r\n\r\n{"ApiVersion":"1.41"}'
)


class Forgetful:
    """An engine that answers once on each connection, and ends it at the next question."""

    def __init__(self, path: Path) -> None:
        self.path, self.asked = path, list[str]()
        self._serving = set[asyncio.Task[None] | None]()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[EngineClient]:
        server, client = await asyncio.start_unix_server(self._serve, self.path), EngineClient(self.path)
        try:
            yield client
        finally:
            await client.close()
            server.close()
            await asyncio.gather(*filter(None, self._serving))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError):
            for answer in (ANSWER, b""):
                head = await reader.readuntil(b"\r\n\r\n")
                self.asked.append(head.split()[0].decode())
                writer.write(answer)
        writer.close()
        await writer.wait_closed()


@pytest.fixture
def engine(tmp_path: Path) -> Forgetful:
    return Forgetful(tmp_path / "engine.sock")


async def test_a_question_on_a_connection_that_the_engine_ends_is_asked_again(engine: Forgetful) -> None:
    async with engine.serving() as client:
        assert await client.prefix() == "/v1.41"
        assert [(await client.call("GET", "/info")).status for _ in range(3)] == [200] * 3
        assert engine.asked == ["GET"] * 7, "each second one twice"


async def test_what_changes_something_is_not_done_twice(engine: Forgetful) -> None:
    async with engine.serving() as client:
        await client.prefix()
        with pytest.raises(Unavailable) as caught:
            await client.call("POST", "/containers/create", body={})
        assert caught.value.code == "engine.unreachable"
        assert engine.asked == ["GET", "POST"]
