"""A node that is up does not walk through all that it imported, again and again."""

from __future__ import annotations

import gc

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
