"""What indexes that lie together achieve, by lies that no signature shows: the figures are in benchmarks/README.md."""

from __future__ import annotations

import pytest

from daemon.misled import Lie, Site, favours_its_own, hides, honest, shows_the_past

SEARCHERS = 6


@pytest.fixture(scope="module")
def site() -> Site:
    return Site(256)


@pytest.mark.parametrize("lie", [hides(1), hides(0.5), hides(0.1), favours_its_own, shows_the_past])
async def test_one_liar_of_three_changes_nothing(site: Site, lie: Lie) -> None:
    outcome = await site.outcome([lie, honest, honest], SEARCHERS, 1)
    assert outcome == (1, 1, 1), "two are asked, and the newest of all that they show counts"


@pytest.mark.parametrize("lie", [hides(1), hides(0.5), favours_its_own, shows_the_past])
async def test_two_liars_of_three_are_soon_asked_no_more(site: Site, lie: Lie) -> None:
    outcome = await site.outcome([lie, lie, honest], SEARCHERS)
    assert outcome.first > 0.8
    assert outcome.last > 0.95
