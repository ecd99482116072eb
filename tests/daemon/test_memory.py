"""A node that is up does not walk through all that it imported, again and again."""

from __future__ import annotations

import gc

from dockage.daemon import memory


def test_what_is_there_once_the_node_is_up_is_no_longer_collected() -> None:
    before = gc.get_freeze_count()
    try:
        memory.settle()
        assert gc.get_freeze_count() > before + 10_000
        assert len(gc.get_objects()) < 1_000
    finally:
        gc.unfreeze()
