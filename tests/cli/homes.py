"""Homes with real daemons, and our own commands run at them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

DOCKAGE = (sys.executable, "-m", "dockage.cli.main")
ON_LOOPBACK = ("--bind", "127.0.0.1:0", "--set", "node.stamp_bits=4")


class Run(NamedTuple):
    home: Path

    def __call__(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [*DOCKAGE, "--home", str(self.home), *words], capture_output=True, text=True, timeout=110
        )
        assert done.returncode == code, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def value(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
