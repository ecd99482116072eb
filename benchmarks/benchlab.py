# engines: none
"""What benchmarks share with the tests' tools in ``script/devtools``: importing this finds them."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "script"))

from devtools.localmarket import DOCKAGE, LocalMarket, NodeProcess  # noqa: E402
from devtools.regtest import free_port  # noqa: E402
from devtools.shell import Failed, run, wait_until  # noqa: E402

__all__ = ["DOCKAGE", "ROOT", "Failed", "LocalMarket", "NodeProcess", "free_port", "run", "wait_until"]
