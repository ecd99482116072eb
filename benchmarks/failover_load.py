# engines: none
"""Requests at a steady rate, whether they are answered or not, each on a connection of its own: how many failed?

    .venv/bin/python benchmarks/failover_load.py PORT HOST [--requests N] [--rate N]

A process of its own for ``benchmarks/failover.py``. Prints one JSON object: ``failed`` counts what was not answered
with 200 within 30 s (every one is asked once: what is asked again, the gateway asks), ``why`` says how,
``when_s`` in which second they were asked, ``slowest_s`` is the longest that was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import time

import uvloop

LIMIT, LATE = 30.0, 0.1
"""Seconds. What this process itself is late by, on a busy machine, is not made up for in one burst: ``rps`` tells."""
CLIENTS = 100
"""Addresses that the requests come from: a gateway lets one have 512 connections and resets the next."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("port", type=int)
    parser.add_argument("host")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=200.0)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(load(options.port, options.host, options.requests, options.rate))))


async def load(port: int, host: str, requests: int, rate: float) -> dict[str, object]:
    why, when, took = collections.Counter[str](), collections.Counter[int](), list[float]()
    request = f"GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode()

    async def ask(number: int) -> None:
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(LIMIT):
                status = await exchange(port, f"127.0.1.{number % CLIENTS + 1}", request)
        except (OSError, EOFError) as error:
            status = type(error).__name__
        if status == "200":
            took.append(time.perf_counter() - begun)
        else:
            why[status] += 1
            when[int(begun - first)] += 1

    first = time.perf_counter()
    due = first
    async with asyncio.TaskGroup() as tasks:
        for number in range(requests):
            ahead = due - time.perf_counter()
            await asyncio.sleep(ahead)
            due += 1 / rate - min(0.0, ahead + LATE)
            tasks.create_task(ask(number))
    sent = time.perf_counter() - first
    return {
        "failed": why.total(),
        "why": why,
        "when_s": when,
        "slowest_s": round(max(took, default=0.0), 2),
        "rps": round(requests / sent),
    }


async def exchange(port: int, client: str, request: bytes) -> str:
    """The status of a whole answer: one that is cut short has failed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(client, 0))
    try:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = next(x for x in head.lower().split("\r\n") if x.startswith("content-length:"))
        await reader.readexactly(int(length.partition(":")[2]))
        return head.split(" ", 2)[1]
    finally:
        writer.close()


if __name__ == "__main__":
    main()
