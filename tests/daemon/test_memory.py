"""A node that is up does not walk through all that it imported, again and again."""

from __future__ import annotations

import gc
import subprocess
import sys

from dockage.daemon import memory


def test_what_is_there_once_the_node_is_up_is_no_longer_looked_at() -> None:
    kept = [[number] for number in range(20_000)]
    assert len(gc.get_objects()) > len(kept)
    memory.settle()
    assert len(gc.get_objects()) < 2_000


def test_nothing_is_looked_through_while_it_is_being_imported() -> None:
    with memory.importing():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_node_that_only_sells_has_no_code_of_other_roles() -> None:
    look = "import dockage.daemon.system, sys; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True
    )
    there = set(done.stdout.split())
    assert "structlog" in there
    assert not there & {"rich", "difflib", "dockage.adapters.front.front", "dockage.adapters.gateway.host"}
