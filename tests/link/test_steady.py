"""A link keeps its socket while interfaces of the machine come and go: once each of them could end it for good."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LIMIT = 60
"""Seconds, for the slowest machine; it takes two."""

CHILD = """
import asyncio, os, subprocess
from dockage.adapters.link import IrohLink, steady

SETTLED = 1.0  # the transport answers a change after 0.25 s

def sockets():
    bound = [line.split() for line in open("/proc/self/net/udp").readlines()[1:]]
    return {row[9] for row in bound}

async def main():
    link = await IrohLink.create(os.urandom(32), "0.0.0.0:0")
    print("subscriptions", len(steady.subscriptions()))
    before = sockets()
    for command in ("link add new0 type bridge", "addr add 10.9.8.1/24 dev new0", "link set new0 up"):
        subprocess.run(["ip", *command.split()], check=True)
    await asyncio.sleep(SETTLED)
    print("sockets", len(before), len(sockets() - before))
    await link.close()

asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes a network namespace")
def test_interfaces_that_come_and_go_do_not_touch_its_socket() -> None:
    child = ["unshare", "--net", sys.executable, "-c", CHILD]
    done = subprocess.run(child, capture_output=True, text=True, timeout=LIMIT)
    assert done.stdout.splitlines() == ["subscriptions 0", "sockets 1 0"], done.stderr[-2000:]
