"""What the way to a stranger's engine costs, beside a plain local dockerd in the same run.

    script/bench docker_front [--json FILE] [--quick]

api_added_p50_ms   latency that the front adds to an API call: the worst of several kinds of calls, each its median
run_added_ms       what `docker run --rm` takes longer than on the plain engine, median
exec_mb_s          through `docker exec -i`: the slower of stdin and stdout
image_delta_mb     moved over the peer link for the second version of a 124 MB image of which 2 MB changed
tunnel_rps         HTTP requests a second through a published port, 50 connections that ask again at once
tunnel_p99_ms      latency when 1,500 requests a second are due on 50 connections, counted from when each was due
tunnel_plain_*     the same of a port that the plain engine publishes
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import io
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import uvloop

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "script"))

from devtools.localmarket import LocalMarket, UnixConnection  # noqa: E402
from devtools.make_image import add as add_file  # noqa: E402
from devtools.make_image import (  # noqa: E402
    digest,
    image_config,
    manifest,
)
from devtools.shell import Failed, wait_until  # noqa: E402

BASE, WEB = "dockage/base:bookworm", "dockage/web:bookworm"
SIZE = ("--cpus=0.5", "--memory=64m")
MIB = 1 << 20
CONNECTIONS, RATE = 50, 1500
REQUEST = b"GET /health HTTP/1.1\r\nHost: bench\r\n\r\n"
"""What this path is asked for is not logged. A line in the engine's log for each request costs it, its shim and the web
server some 110 us, a quarter of all that is spent on one, and no tunnel has a part in it."""
ROUNDS = 5
"""Between the two engines and the kinds of calls, so that a moment of the machine falls on all of them."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--only", help="one of: " + " ".join(PARTS))
    parser.add_argument("--engines", nargs=2, metavar=("TENANT", "PROVIDER"), required=True, help="sockets")
    options = parser.parse_args()
    figures = measure(*options.engines, 0.1 if options.quick else 1.0, options.only)
    figures["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}"
    for name, value in figures.items():
        print(f"{name:<22} {value}")
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")


class Bench:
    """Both worlds: plain is the tenant's own engine, ours the front of a node that rents from another one."""

    def __init__(self, world: LocalMarket, tenant_engine: str, provider_engine: str, share: float) -> None:
        self.world, self.plain, self.provider = world, tenant_engine, provider_engine
        self.ours = world.tenant.docker_host.removeprefix("unix://")
        self.share = share

    def times(self, count: int) -> int:
        return max(ROUNDS, round(count * self.share))

    def docker(self, engine: str, *arguments: str, data: bytes | None = None) -> bytes:
        environment = {**os.environ, "DOCKER_HOST": f"unix://{engine}"}
        done = subprocess.run(["docker", *arguments], env=environment, capture_output=True, input=data)
        if done.returncode:
            raise Failed(f"docker {' '.join(arguments)}: {done.stderr.decode().strip()}")
        return done.stdout.strip()

    def bulk(self, engine: str, *arguments: str, source: int | IO[bytes] = subprocess.DEVNULL) -> None:
        """The same for many bytes, which this process has no part in: it would cost the cores more than the engine."""
        environment = {**os.environ, "DOCKER_HOST": f"unix://{engine}"}
        subprocess.run(
            ["docker", *arguments], env=environment, stdin=source, stdout=subprocess.DEVNULL, check=True
        )


def measure(tenant_engine: str, provider_engine: str, share: float, only: str | None) -> dict[str, Any]:
    # A lease lingers as long as it does by default, so that a row of `docker run` rents once.
    os.environ.setdefault("DOCKAGE_LOG", "info")  # as users have it; a LocalMarket says more else
    world = LocalMarket(tenant_engine, provider_engine, {"ada": 1}, channel_sat=500_000, linger_sec=5)
    figures: dict[str, Any] = {}
    try:
        world.start()
        world.fund_tenant(5_000_000)
        world.mine_every(1.0)
        world.wait_for_offers(1)
        bench = Bench(world, tenant_engine, provider_engine, share)
        # The first lease opens the channel and ships the image; while it stays, the image stays.
        bench.docker(
            bench.ours, "run", "-d", "--name", "box", "--cpus=0.1", "--memory=32m", BASE, "sleep", "100000"
        )
        for name, part in PARTS.items():
            if only in (None, name):
                figures |= part(bench)
    finally:
        world.close()
    return figures


# -- API calls -----------------------------------------------------------------------------------------
def api(bench: Bench) -> dict[str, Any]:
    """Against the provider's engine itself, which answers for the same container."""
    container = bench.docker(bench.ours, "inspect", "-f", "{{.Id}}", "box").decode()
    calls = {
        "list": ("GET", "/v1.41/containers/json?all=1"),
        "inspect": ("GET", f"/v1.41/containers/{container}/json"),
        "top": ("GET", f"/v1.41/containers/{container}/top"),
        "logs": ("GET", f"/v1.41/containers/{container}/logs?stdout=1"),
        "ping": ("GET", "/_ping"),
    }
    taken: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        for name, call in calls.items():
            for engine in (bench.provider, bench.ours):
                taken[name, engine] += latencies(engine, *call, bench.times(200) // ROUNDS)
    median = {key: statistics.median(values) for key, values in taken.items()}
    added = {
        name: round((median[name, bench.ours] - median[name, bench.provider]) * 1000, 2) for name in calls
    }
    return {"api_added_p50_ms": max(added.values()), "api_added_by_call_ms": added}


def latencies(engine: str, method: str, path: str, count: int) -> list[float]:
    """Seconds each, on one connection as long as the server keeps it."""
    connection = UnixConnection(engine, 20)
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        connection.request(method, path)
        connection.getresponse().read()
        taken.append(time.perf_counter() - began)
    connection.close()
    return taken


# -- docker run ----------------------------------------------------------------------------------------
def run(bench: Bench) -> dict[str, Any]:
    def once(engine: str, *more: str) -> float:
        began = time.perf_counter()
        bench.docker(engine, "run", "--rm", *SIZE, *more, BASE, "true")
        return time.perf_counter() - began

    bench.docker(bench.plain, "network", "create", "own")
    first = once(bench.ours)
    plain, own, ours = [], [], []
    for _ in range(bench.times(20)):
        plain.append(once(bench.plain))
        own.append(once(bench.plain, "--network=own"))
        ours.append(once(bench.ours))
    bench.docker(bench.plain, "network", "rm", "own")
    median = [statistics.median(taken) * 1000 for taken in (plain, own, ours)]
    return {
        "run_added_ms": round(median[2] - median[0]),
        "run_plain_ms": round(median[0]),
        "run_plain_own_network_ms": round(median[1]),
        "run_first_ms": round(first * 1000),
    }


# -- docker exec ---------------------------------------------------------------------------------------
def execute(bench: Bench) -> dict[str, Any]:
    size = bench.times(256)
    whole = tempfile.TemporaryFile()
    """In memory, so that reading it costs the CLI least."""
    for _ in range(size):
        whole.write(bytes(MIB))

    def into(engine: str) -> None:
        whole.seek(0)
        bench.bulk(engine, "exec", "-i", "fast", "sh", "-c", "cat >/dev/null", source=whole)

    def out(engine: str) -> None:
        bench.bulk(
            engine, "exec", "fast", "dd", "if=/dev/zero", "bs=128K", f"count={size * 8}", "status=none"
        )

    def small(engine: str) -> None:
        """A program that writes 8 KiB at a time, for which the engine wakes three processes each."""
        bench.bulk(engine, "exec", "fast", "head", "-c", str(size * MIB), "/dev/zero")

    engines = {"plain": bench.plain, "ours": bench.ours}
    for engine in engines.values():
        bench.docker(
            engine, "run", "-d", "--name", "fast", "--cpus=1.4", "--memory=64m", BASE, "sleep", "9999"
        )
    found: dict[tuple[str, str], float] = defaultdict(float)
    for _ in range(3):
        for who, engine in engines.items():
            for what, way in (("in", into), ("out", out), ("out small", small)):
                found[who, what] = max(found[who, what], size / seconds(way, engine))
    for engine in engines.values():
        bench.docker(engine, "rm", "-f", "fast")
    return {
        "exec_mb_s": round(min(found["ours", "in"], found["ours", "out"]) * MIB / 1e6, 1),
        "exec_mib_s": {" ".join(key): round(rate) for key, rate in found.items()},
    }


def seconds(work: Callable[[str], None], engine: str) -> float:
    began = time.perf_counter()
    work(engine)
    return time.perf_counter() - began


# -- images --------------------------------------------------------------------------------------------
def images(bench: Bench) -> dict[str, Any]:
    """60 MB that no compressor helps, 60 MB of text, an application of 2 MB that changes."""
    chance = random.Random(1)
    words = [bytes(chance.choices(b"abcdefghij", k=7)) for _ in range(5000)]
    text = b" ".join(chance.choices(words, k=7_500_000))
    layers = [layer("noise", chance.randbytes(60_000_000)), layer("text", text[:60_000_000])]
    moved = []
    for version in (1, 2):
        image = image_of(f"bench/big:{version}", [*layers, layer("app", chance.randbytes(2_000_000))])
        bench.docker(bench.plain, "load", data=image)
        before = loopback_bytes()
        bench.docker(bench.ours, "create", "--name", f"big{version}", *SIZE, f"bench/big:{version}", "x")
        moved.append(loopback_bytes() - before)
    bench.docker(bench.ours, "rm", "big1", "big2")
    bench.docker(bench.plain, "rmi", "bench/big:1", "bench/big:2")
    return {"image_delta_mb": round(moved[1] / 1e6, 2), "image_first_mb": round(moved[0] / 1e6, 1)}


def layer(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        add_file(archive, name, content)
    return stream.getvalue()


def image_of(name: str, layers: list[bytes]) -> bytes:
    document = image_config({"Cmd": ["x"]}, [digest(one) for one in layers])
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for one in layers:
            add_file(archive, f"{digest(one)}/layer.tar", one)
        add_file(archive, f"{digest(document)}.json", document)
        add_file(archive, "manifest.json", manifest(name, document, layers))
    return stream.getvalue()


def loopback_bytes() -> int:
    """The peer link runs over it, and hardly anything else: an upper bound."""
    line = next(x for x in Path("/proc/net/dev").read_text().splitlines() if x.strip().startswith("lo:"))
    return int(line.split()[1])


# -- HTTP through the tunnel ---------------------------------------------------------------------------
def tunnel(bench: Bench) -> dict[str, Any]:
    duration = max(2.0, 10 * bench.share)
    full, paced = through(bench, bench.ours, duration)
    plain_full, plain_paced = through(bench, bench.plain, duration)
    return {
        "tunnel_rps": round(len(full) / duration),
        "tunnel_p99_ms": part(paced, 99),
        "tunnel_p50_ms": part(paced, 50),
        "tunnel_full_p99_ms": part(full, 99),
        "tunnel_plain_rps": round(len(plain_full) / duration),
        "tunnel_plain_p99_ms": part(plain_paced, 99),
    }


def through(bench: Bench, engine: str, duration: float) -> tuple[list[float], list[float]]:
    """Seconds of the requests to a published port, sorted: asked again at once, and when they were due."""
    bench.docker(engine, "run", "-d", "--name", "web", "--cpus=1.4", "--memory=64m", "-p", "80", WEB)
    port = int(bench.docker(engine, "port", "web", "80").decode().rpartition(":")[2])
    if not wait_until(lambda: answers(port), 20, 0.05):
        raise Failed("the web server does not answer")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        full, paced = (sorted(runner.run(load(port, duration, rate))) for rate in (0, RATE))
    bench.docker(engine, "rm", "-f", "web")
    return full, paced


def part(sorted_seconds: list[float], percent: int) -> float:
    """Milliseconds within which *percent* of them were over."""
    return round(sorted_seconds[len(sorted_seconds) * percent // 100] * 1000, 1)


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


async def load(port: int, duration: float, rate: int) -> list[float]:
    """Seconds of each request, from when it was due; *rate* 0 = each connection asks again at once."""
    taken: list[float] = []
    pause = CONNECTIONS / rate if rate else 0.0
    begin, askers = time.perf_counter() + 0.1, list[Asker]()
    for number in range(CONNECTIONS):
        due = begin + pause * number / CONNECTIONS
        asker = Asker(port, due, due + duration, pause, taken)
        await asker.connect()
        askers.append(asker)
    await asyncio.gather(*(asker.over for asker in askers))
    return taken


class Asker(asyncio.Protocol):
    """One connection, straight on its transport: a task a request took as long as a node does with it."""

    def __init__(self, port: int, due: float, end: float, pause: float, taken: list[float]) -> None:
        self._port, self._due, self._end, self._pause, self._taken = port, due, end, pause, taken
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self._loop.create_future()
        self._answer, self._answers = b"", 0
        self._timer = self._loop.call_later(0, lambda: None)

    async def connect(self) -> None:
        await self._loop.create_connection(lambda: self, "127.0.0.1", self._port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._answers = cast(asyncio.Transport, transport), 0
        self._ask_when_due()

    def _ask_when_due(self) -> None:
        wait = self._due - time.perf_counter()
        if wait > 0:
            self._timer = self._loop.call_later(wait, self._ask)
        else:
            self._ask()

    def _ask(self) -> None:
        self._transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not is_whole(self._answer):
            return
        self._answer, done = b"", time.perf_counter()
        self._answers += 1
        self._taken.append(done - self._due)
        self._due = self._due + self._pause if self._pause else done
        if self._due < self._end:
            self._ask_when_due()
        else:
            self.over.set_result(None)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The web server ends one after 1,000 answers."""
        self._timer.cancel()
        if self._answers and not self.over.done():
            self._again = self._loop.create_task(self.connect())
        elif not self.over.done():
            self.over.set_exception(exc or Failed("the web server closed a connection"))


def is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    return bool(end) and len(body) >= int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "api": api, "run": run, "exec": execute, "images": images, "tunnel": tunnel,
}  # fmt: skip

if __name__ == "__main__":
    main()
