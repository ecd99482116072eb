"""docs/explanation/states.md shows the transition tables as they are."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from dockage.domain import channel, lease

PAGE = Path(__file__).parents[2] / "docs/explanation/states.md"


def diagram(table: Mapping[Any, frozenset[Any]]) -> str:
    """Mermaid, in the order in which the states are declared."""
    states: type[StrEnum] = type(next(iter(table)))
    moves = [
        f"    {one.value} --> {other.value}" for one in states for other in states if other in table[one]
    ]
    first = f"    [*] --> {next(iter(states)).value}"
    last = [f"    {state.value} --> [*]" for state in states if not table[state]]
    return "\n".join(["```mermaid", "stateDiagram-v2", first, *moves, *last, "```"])


@pytest.mark.parametrize(("name", "table"), [("lease", lease.TRANSITIONS), ("channel", channel.TRANSITIONS)])
def test_the_diagrams_are_current(name: str, table: Mapping[Any, frozenset[Any]]) -> None:
    shown = PAGE.read_text().partition(f"<!-- {name} -->\n")[2].partition("<!-- end -->")[0].strip()
    assert shown == diagram(table), f"paste this into {PAGE.name}:\n{diagram(table)}"


@pytest.mark.parametrize("states", [lease.LeaseState, channel.ChannelState])
def test_every_state_is_explained(states: type[StrEnum]) -> None:
    page = PAGE.read_text()
    for state in states:
        assert f"\n| {state.value} |" in page
