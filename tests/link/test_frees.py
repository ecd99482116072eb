"""A callback of the binding in which Python collects garbage, with streams in it: what once stopped a node for ever."""

from __future__ import annotations

import subprocess
import sys

LIMIT = 100
"""Seconds, for the slowest machine; it takes two. In a process of its own: a thread that waits for itself in there can
not even be interrupted."""

CHILD = """
import asyncio, gc, hashlib, threading
from dockage.adapters.link import IrohLink, calls
from dockage.testing.link import echo

LOOP = threading.get_ident()
collected = [0]

class Polls(dict):
    def pop(self, handle):
        if threading.get_ident() != LOOP:
            collected[0] += 1
            gc.collect(0)
        return dict.pop(self, handle)

calls._polls = Polls()

class Cycle:
    pass

async def call(link, node):
    for _ in range(20):
        stream = await link.open(node)
        await stream.write(b"x" * 30_000)
        await stream.finish()
        while await stream.read(1 << 16):
            pass
        garbage = Cycle()
        garbage.itself, garbage.stream = garbage, stream

async def main():
    one, other = [await IrohLink.create(hashlib.sha256(seed).digest()) for seed in (b"one", b"other")]
    one.learn(other.node, other.address())
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(other.serve(echo))
        await asyncio.gather(*[call(one, other.node) for _ in range(10)])
        serving.cancel()
    assert collected[0] > 10, collected
    print("done")

asyncio.run(main())
"""


def test_garbage_that_is_collected_in_a_callback_stops_nobody() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=LIMIT)
    assert done.stdout.splitlines()[-1:] == ["done"], done.stderr[-2000:]
