"""What an engine's list says about the health of a lease."""

from __future__ import annotations

from typing import Any

import pytest

from dockage.daemon.wellness import judged


def one(state: str, status: str) -> dict[str, Any]:
    return {"State": state, "Status": status}


WELL = one("running", "Up 5 seconds (healthy)")


@pytest.mark.parametrize(
    ("listing", "well"),
    [
        ([WELL], True),
        ([one("running", "Up 5 seconds")], True),
        ([WELL, one("exited", "Exited (0) 2 seconds ago")], True),
        ([WELL, one("created", "Created")], True),
        ([WELL, one("exited", "Exited (1) 2 seconds ago")], False),
        ([WELL, one("exited", "Exited (137) 2 seconds ago")], False),
        ([WELL, one("running", "Up 1 minute (unhealthy)")], False),
        ([WELL, one("dead", "Dead")], False),
        ([WELL, one("running", "Up 1 second (health: starting)")], None),
        ([WELL, one("restarting", "Restarting (1) 2 seconds ago")], None),
        ([one("restarting", "Restarting (1)"), one("exited", "Exited (2) now")], False),
        ([], None),
        ([{}], None),
        ([one("exited", "Exited (x)")], False),
    ],
)
def test_it_is_well_if_nothing_failed_and_nothing_only_begins(
    listing: list[dict[str, Any]], well: bool | None
) -> None:
    assert judged(listing) is well
