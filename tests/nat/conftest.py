"""One topology and three agents for the whole folder: starting an interpreter costs more than most of what they do."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nat import topology

AGENT = Path(__file__).with_name("agent.py")


class Agent:
    def __init__(self, name: str) -> None:
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", topology.PREFIX + name, sys.executable, str(AGENT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        assert self._line() == "ready"

    def do(self, what: str, **how: Any) -> Any:
        assert self.process.stdin is not None
        print(json.dumps([what, how]), file=self.process.stdin, flush=True)
        answer = self._line()
        assert "error" not in answer, answer
        return answer["is"]

    def let_go(self) -> None:
        """It ends by itself then."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def end(self) -> None:
        assert self.process.stdout is not None
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()

    def _line(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


class Street:
    """The public machine with two relays and what tells others their address; two homes."""

    def __init__(self) -> None:
        self.public, self.a, self.b = (Agent(name) for name in ("public", "homeA", "homeB"))
        for agent in (self.public, self.a, self.b):
            agent.ready()
        self._round = 0
        for port in (3340, 3341):
            self.public.do("relay", at=topology.PUBLIC, port=port)
        key = self.public.do("start", seed=seed("public"), bind=f"{topology.PUBLIC}:4711", runs=3340)["key"]
        self.observers = [[key, f"{topology.PUBLIC}:4711"]]

    def homes(self, symmetric: bool, relays: list[str] | None = None) -> tuple[str, str]:
        """Both start anew, with keys and ports that no router has seen. Returns their keys."""
        self._round += 1
        for side in "AB":
            topology.translate(side, symmetric)
        return tuple(
            agent.do(
                "start",
                seed=seed(f"{side} {self._round}"),
                bind="0.0.0.0:0",
                observers=self.observers,
                relays=relays or [],
            )["key"]
            for side, agent in (("a", self.a), ("b", self.b))
        )

    def introduce(self, key: str, **wanted: str) -> None:
        """B's address comes to A, as a record of the market would bring it."""
        self.a.do("learn", key=key, **self.b.do("address", **wanted))

    def end(self) -> None:
        agents = (self.a, self.b, self.public)
        for agent in agents:
            agent.let_go()
        for agent in agents:
            agent.end()


def seed(name: str) -> str:
    return hashlib.sha256(b"nat " + name.encode()).hexdigest()


@pytest.fixture(scope="session")
def street() -> Iterator[Street]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    topology.up()
    try:
        made = Street()
        yield made
        made.end()
    finally:
        topology.down()
