"""Selling hours: when they end, in every zone, over midnight and over a change of the clocks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from daemon.nodes import CONFIG, FREE_POLICY, POLICY, World, until
from dockage.daemon.calendar import sleeps_until
from dockage.daemon.hours import read_hours
from dockage.domain.errors import UsageError
from dockage.domain.units import MINUTE, SECOND, Instant, Msat

BERLIN = "Europe/Berlin"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


def utc(*when: int) -> Instant:
    return Instant(int(datetime(*when, tzinfo=UTC).timestamp()) * SECOND)  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("hours", "now", "ends"),
    [
        (
            "08:00-18:00",
            utc(2026, 11, 26, 9, 0),
            utc(2026, 11, 26, 17, 0),
        ),  # in them: Berlin is an hour ahead
        ("08:00-18:00", utc(2026, 11, 26, 6, 59), utc(2026, 11, 25, 17, 0)),  # before: yesterday's end
        ("08:00-18:00", utc(2026, 11, 26, 17, 0), utc(2026, 11, 26, 17, 0)),  # over, to the second
        ("22:00-07:00", utc(2026, 11, 26, 22, 0), utc(2026, 11, 27, 6, 0)),  # before midnight
        ("22:00-07:00", utc(2026, 11, 27, 5, 0), utc(2026, 11, 27, 6, 0)),  # after midnight
        ("22:00-07:00", utc(2026, 11, 27, 12, 0), utc(2026, 11, 27, 6, 0)),  # by day: this morning's end
        ("22:00-07:00", utc(2026, 3, 28, 22, 0), utc(2026, 3, 29, 5, 0)),  # the night that loses an hour
        ("22:00-07:00", utc(2026, 10, 24, 22, 0), utc(2026, 10, 25, 6, 0)),  # the night that has it twice
    ],
)
def test_when_the_hours_end(hours: str, now: Instant, ends: Instant) -> None:
    assert read_hours(hours, BERLIN).closes_at(now) == ends


@pytest.mark.parametrize(
    ("text", "zone"),
    [("25:00-07:00", ""), ("night", ""), ("22:00-22:00", ""), ("22:00-07:00", "Mars/Olympus")],
)
def test_senseless_hours_are_refused(text: str, zone: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_hours(text, zone)
    assert caught.value.code == "config.hours"


async def test_a_lease_ends_with_the_hours_and_the_offer_goes(world: World) -> None:
    """The world's clock begins at 08:00 UTC on 2027-01-15."""
    morning = replace(CONFIG, provider=replace(CONFIG.provider, hours="07:00-08:10", time_zone="UTC"))
    end = utc(2027, 1, 15, 8, 10)
    await world.provider(policy=FREE_POLICY, config=morning)
    tenant = await world.tenant(coins=(), wallet=False)
    lease = await tenant.rent()
    await until(lambda: tenant.rented(lease).announced)
    assert tenant.rented(lease).announced.at == end
    assert (await tenant.node.market.search())[0].offer.until == end
    await until(lambda: tenant.rented(lease).is_over, 11 * 60, step=5)
    assert tenant.rented(lease).reason.code == "provider.hours"
    assert 0 <= world.clock.now() - end < MINUTE
    assert await tenant.node.market.search() == ()


async def test_too_small_a_deployment_is_refused(world: World) -> None:
    dear = replace(POLICY, min_msat_hour=Msat(10**12))
    await world.provider(policy=dear)
    tenant = await world.tenant()
    with pytest.raises(UsageError) as caught:
        await tenant.rent()
    assert "sells nothing that costs less" in caught.value.message


@pytest.mark.parametrize(
    ("now", "until_when"),
    [
        (utc(2026, 11, 26, 22, 0), "08:00 Europe/Berlin"),  # Thursday night
        (utc(2026, 11, 27, 20, 0), "Mon 08:00 Europe/Berlin"),
        (utc(2026, 11, 27, 12, 0), ""),
    ],
)
def test_when_a_schedule_of_none_is_over_is_said_for_people(now: Instant, until_when: str) -> None:
    text = "mon-fri 08:00-20:00 2; 00:00-24:00 0; Europe/Berlin"
    assert sleeps_until(text, now) == until_when
    assert sleeps_until("", now) == ""
    assert sleeps_until("00:00-24:00 0", now) == "its schedule is another one"
