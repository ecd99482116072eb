"""The examples as their users run them, on a stranger's machine: built, brought up, really used, restarted, taken down.

All four run at once; they come up two by two, so that they wait together.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from devtools.localmarket import DOCKAGE, LocalMarket
from devtools.regtest import free_port
from devtools.shell import wait_until
from e2e.conftest import LAB

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = {
    "site": ["web"],
    "blog": ["web", "app", "db"],
    "queue": ["redis", "api", "worker"],
    "echo": ["echo"],
}
"""Name: its services."""
READY_SEC = "90"


class Example:
    """``examples/NAME`` with a port of its own, at a provider that is not dear."""

    def __init__(self, market: LocalMarket, name: str, folder: Path) -> None:
        self.market, self.name, self.port = market, name, free_port()
        labels = {service: {"labels": {"dockage.region": LAB}} for service in EXAMPLES[name]}
        place = folder / f"{name}.json"
        place.write_text(json.dumps({"services": labels}))
        self._files = ["-f", str(ROOT / "examples" / name / "compose.yaml"), "-f", str(place)]

    def compose(self, *words: str) -> str:
        return self.market.docker("compose", *self._files, *words, seconds=150).stdout

    def build(self) -> None:
        self.compose("build", "-q")

    def up(self) -> None:
        self.compose("up", "-d", "--no-build", "--wait", "--wait-timeout", READY_SEC)

    def down(self) -> None:
        self.compose("down", "-v", "-t", "3")

    def get(self, path: str, body: str | None = None) -> Any:
        """The answer's text, or its value if it is JSON."""
        data = body.encode() if body is not None else None
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", data, timeout=20) as answer:
            text = answer.read().decode()
            return json.loads(text) if answer.headers["Content-Type"].startswith("application/json") else text


@pytest.fixture(scope="module")
def running(market: LocalMarket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Example]]:
    load = [str(ROOT / "script/images"), "load", os.environ["DOCKAGE_TEST_TENANT_ENGINE"], "examples"]
    subprocess.run(load, check=True, capture_output=True, timeout=60)
    folder = tmp_path_factory.mktemp("places")
    examples = {name: Example(market, name, folder) for name in EXAMPLES}
    os.environ |= {f"{name.upper()}_PORT": str(one.port) for name, one in examples.items()}
    with ThreadPoolExecutor(2) as pool:
        try:
            for step in (Example.build, Example.up):
                list(pool.map(step, examples.values()))
            yield examples
        finally:
            list(pool.map(Example.down, examples.values()))
            for name in examples:
                del os.environ[f"{name.upper()}_PORT"]
    assert wait_until(lambda: all(state(market, name) == "ended" for name in EXAMPLES), 30)


def state(market: LocalMarket, deployment: str) -> str:
    leases = market.tenant.ask("GET", "/v1/spend")["leases"]
    return str(next(x["state"] for x in reversed(leases) if x["deployment"] == deployment))


def test_a_static_site_is_served_by_a_stranger(running: dict[str, Example]) -> None:
    assert "<title>" in running["site"].get("/")


def test_what_a_blog_was_told_survives_a_restart_of_all_of_it(running: dict[str, Example]) -> None:
    blog = running["blog"]
    for title in ("First", "<b>Second</b>"):
        page = blog.get("/posts", urllib.parse.urlencode({"title": title, "text": "It is kept. ✓"}))
    assert "&lt;b&gt;Second" in page, "the browser is led back to the list"
    before = blog.get("/posts.json")
    assert [post["title"] for post in before] == ["<b>Second</b>", "First"]
    blog.compose("restart", "-t", "10")
    assert wait_until(lambda: posts_of(blog) == before, 60), posts_of(blog)


def posts_of(blog: Example) -> Any:
    try:
        return blog.get("/posts.json")
    except OSError as error:
        return str(error)


def test_jobs_are_done_by_several_workers_and_show_in_top(
    running: dict[str, Example], market: LocalMarket
) -> None:
    queue = running["queue"]
    queue.compose("up", "-d", "--no-build", "--scale", "worker=2", "--no-recreate", "--wait")
    jobs = [queue.get("/jobs", str(below))["job"] for below in (10, 1_000_000, 1_000_001, 1_000_002)]
    done = lambda: [queue.get(f"/jobs/{job}") for job in jobs]  # noqa: E731
    assert wait_until(lambda: all(job["state"] == "done" for job in done()), 60), done()
    assert [job["result"] for job in done()] == [4, 78_498, 78_498, 78_498]
    assert len({job["worker"] for job in done()}) == 2

    shown = dockage(market, "top", "--once", "--json")
    [lease] = [row for row in shown["leases"] if row["name"] == "queue"]
    names = {row["name"] for row in shown["containers"] if row["lease"] == lease["lease"]}
    assert names == {"queue-redis-1", "queue-api-1", "queue-worker-1", "queue-worker-2"}
    assert all(row["memory_bytes"] > 1 << 20 for row in shown["containers"])
    assert lease["cpu_cores"] is not None
    assert 0 < lease["due_msat"]


def dockage(market: LocalMarket, *words: str) -> Any:
    command = [*DOCKAGE, "--home", str(market.tenant.home), *words]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)


async def test_a_websocket_echoes_through_the_tunnel(running: dict[str, Example]) -> None:
    url = f"http://127.0.0.1:{running['echo'].port}/"
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
        await socket.send_str("hello ✓")
        assert (await socket.receive(timeout=20)).data == "hello ✓"
        messages = [bytes([n]) * (n * 4000) for n in range(64)]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send(socket, messages))
            assert [(await socket.receive(timeout=20)).data for _ in messages] == messages
        await socket.ping()
        await asyncio.sleep(0)
        assert await socket.close()


async def send(socket: aiohttp.ClientWebSocketResponse, messages: list[bytes]) -> None:
    for message in messages:
        await socket.send_bytes(message)


def test_what_was_spent_adds_up_to_the_bills(running: dict[str, Example], market: LocalMarket) -> None:
    """Of all leases of this market, whatever else was run on it."""
    assert running
    whole = dockage(market, "spend", "--json", "--step", "minute")
    due = sum(x["due_msat"] for x in market.tenant.ask("GET", "/v1/spend")["leases"])
    rows = sum(row["due_msat"] for row in whole["rows"])
    assert whole["due_msat"] == rows
    assert 0 < rows <= due, "a tick or two may have come meanwhile"
    assert due - rows < due // 2
