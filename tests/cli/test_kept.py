"""What the controller's answers mean for a command that waits."""

from __future__ import annotations

from typing import Any

import pytest

from dockage.cli import kept
from dockage.cli.errors import UsageError


def chapter(at: int, what: str) -> dict[str, Any]:
    return {"at_ns": at, "what": what, "code": "market.nothing-apart", "text": "none of another operator"}


def test_a_move_that_found_no_place_is_an_error_and_an_older_one_is_not() -> None:
    of = {"deployment": "shop", "story": [chapter(5, "stayed"), chapter(9, "replaced")]}
    kept.check_moved(of, 5)
    of["story"] = [*of["story"], chapter(12, "stayed")]
    with pytest.raises(UsageError, match="shop stays where it is: none of another operator") as caught:
        kept.check_moved(of, 9)
    assert caught.value.code == "market.nothing-apart"
    with pytest.raises(
        UsageError, match="shop has moved in part, the rest stays where it is: none of another"
    ):
        kept.check_moved(of, 5)


def replica(**more: Any) -> dict[str, Any]:
    plain = {"lease": "ab" * 16, "provider": "cd" * 32, "region": "eu", "state": "serving", "health": "well"}
    return {**plain, "reason": None, "primary": True, "since_sec": 1, "msat_hour_max": 5, **more}


def test_a_rollout_and_what_came_of_it_are_told() -> None:
    of = {"deployment": "shop", "hindrance": None, "looking": False, "rollout": "proving", "setback": None}
    text = kept.listing([{**of, "replicas": [replica(state="proving")]}])
    assert "shop: what changed is rolled out: it is not healthy yet" in text
    failed = {"code": "deploy.unhealthy", "text": "what is new failed"}
    text = kept.listing([{**of, "rollout": "", "setback": failed, "replicas": [replica()]}])
    assert "shop: not rolled out: what is new failed (deploy.unhealthy)" in text
