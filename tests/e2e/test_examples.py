"""The examples as their users run them, on a stranger's machine: brought up, really used, restarted, taken down."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable
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

pytestmark = pytest.mark.timeout(240)


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

    def __enter__(self) -> Example:
        os.environ[f"{self.name.upper()}_PORT"] = str(self.port)
        self.compose("up", "-d", "--build", "--wait", "--wait-timeout", READY_SEC)
        return self

    def __exit__(self, *_: object) -> None:
        self.compose("down", "-v", "-t", "3")
        assert wait_until(lambda: self.lease()["state"] == "ended", 30), self.lease()

    def lease(self) -> dict[str, Any]:
        leases = self.market.tenant.ask("GET", "/v1/spend")["leases"]
        return next(x for x in reversed(leases) if x["deployment"] == self.name)

    def get(self, path: str, body: str | None = None) -> Any:
        """The answer's text, or its value if it is JSON."""
        data = body.encode() if body is not None else None
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", data, timeout=20) as answer:
            text = answer.read().decode()
            return json.loads(text) if answer.headers["Content-Type"].startswith("application/json") else text


Run = Callable[[str], Example]


@pytest.fixture(scope="module")
def images(tenant_engine: Path) -> None:
    """What the examples are built from, in the tenant's engine."""
    load = [str(ROOT / "script/images"), "load", str(tenant_engine), "examples"]
    subprocess.run(load, check=True, capture_output=True, timeout=120)


@pytest.fixture
def run(market: LocalMarket, images: None, tmp_path: Path) -> Run:
    return lambda name: Example(market, name, tmp_path)


def test_a_static_site_is_served_by_a_stranger(run: Run) -> None:
    with run("site") as site:
        assert "<title>" in site.get("/")


def test_what_a_blog_was_told_survives_a_restart_of_all_of_it(run: Run) -> None:
    with run("blog") as blog:
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


def test_jobs_are_done_by_several_workers_and_show_in_top_and_in_the_accounts(
    run: Run, market: LocalMarket
) -> None:
    with run("queue") as queue:
        queue.compose("up", "-d", "--no-build", "--scale", "worker=2", "--no-recreate", "--wait")
        workers: set[str] = set()

        def both_worked() -> bool:
            workers.add(primes(queue))
            return len(workers) == 2

        assert wait_until(both_worked, 60), workers
        shown = dockage(market, "top", "--once", "--json")
    [lease] = [row for row in shown["leases"] if row["name"] == "queue"]
    parts = [row for row in shown["containers"] if row["lease"] == lease["lease"]]
    assert {row["name"] for row in parts} == {
        "queue-redis-1",
        "queue-api-1",
        "queue-worker-1",
        "queue-worker-2",
    }
    assert all(row["memory_bytes"] > 1 << 20 and row["cpu_cores"] is not None for row in parts)
    assert lease["cpu_cores"] is not None
    assert lease["due_msat"] > 0

    spent = dockage(market, "spend", "--json", "--step", "minute")
    due = sum(x["due_msat"] for x in market.tenant.ask("GET", "/v1/spend")["leases"])
    assert spent["due_msat"] == sum(row["due_msat"] for row in spent["rows"]) == due


def primes(queue: Example) -> str:
    """One job, and who did it."""
    job = queue.get("/jobs", "100000")["job"]
    assert wait_until(lambda: queue.get(f"/jobs/{job}")["state"] == "done", 60)
    done = queue.get(f"/jobs/{job}")
    assert done["result"] == 9_592
    return str(done["worker"])


def dockage(market: LocalMarket, *words: str) -> Any:
    command = [*DOCKAGE, "--home", str(market.tenant.home), *words]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)


def test_a_websocket_echoes_through_the_tunnel(run: Run) -> None:
    with run("echo") as server:
        asyncio.run(talk(f"http://127.0.0.1:{server.port}/"))


async def talk(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
        await socket.send_str("hello ✓")
        assert (await socket.receive(timeout=20)).data == "hello ✓"
        messages = [bytes([n]) * (n * 4000) for n in range(64)]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send(socket, messages))
            assert [(await socket.receive(timeout=20)).data for _ in messages] == messages
        assert await socket.close()


async def send(socket: aiohttp.ClientWebSocketResponse, messages: list[bytes]) -> None:
    for message in messages:
        await socket.send_bytes(message)
