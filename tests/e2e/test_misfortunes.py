"""Bad input and missing parts: a clear error, and nothing lost."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from devtools.localmarket import DOCKAGE, LocalMarket
from devtools.shell import wait_until
from e2e.stories import IMAGE, Site, channel, channels, close_channel


def refused(market: LocalMarket, *arguments: str) -> str:
    """What ``docker run`` says; it must have failed, and nothing may have been rented or paid for it."""
    before = opened(market)
    done: subprocess.CompletedProcess[str] = market.docker("run", *arguments, check=False)
    assert done.returncode == 125, done
    assert opened(market) == before
    return done.stderr.lower()


def opened(market: LocalMarket) -> list[Any]:
    leases = market.tenant.ask("GET", "/v1/spend")["leases"]
    channels = market.tenant.ask("GET", "/v1/channels")["channels"]
    return [[x["lease"] for x in leases if x["running_sec"]], [c["channel"] for c in channels]]


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ("--privileged", "privileged"),
        ("--network=host", "networkmode"),
        ("--volume=/etc:/etc", "binds"),
        ("--device=/dev/null", "devices"),
        ("--pid=host", "pidmode"),
    ],
)
def test_what_the_market_cannot_honour_is_refused_before_anything_is_paid(
    market: LocalMarket, option: str, word: str
) -> None:
    assert word in refused(market, "--rm", option, IMAGE, "true")


def test_no_provider_fits_says_which_constraint_and_the_nearest_offer(market: LocalMarket) -> None:
    said = refused(market, "--rm", "--memory=64g", IMAGE, "true")
    assert "offers fits; the nearest is" in said  # two, or three while one more story's is not yet expired
    assert "mib of memory" in said
    dear = refused(market, "--rm", "--label=dockage.max-price=1", IMAGE, "true")
    assert "offers fits; the nearest is" in dear
    assert "costs up to" in dear


def test_a_channel_too_small_says_what_would_pass(market: LocalMarket) -> None:
    bob = market.providers["bob"]
    for each in channels(market.tenant):  # other stories': with one of them no new one would be needed
        if each["peer"] == bob.key and each["state"] in ("opening", "funded", "open"):
            close_channel(market, bob, each["channel"])
    label = f"--label=dockage.provider={bob.key[:12]}"
    said = refused(market, "--rm", "--label=dockage.channel-sat=1000", label, IMAGE, "true")
    assert "take at least" in said
    assert "sat" in said


def test_an_unknown_label_is_refused(market: LocalMarket) -> None:
    assert "dockage.prise" in refused(market, "--rm", "--label=dockage.prise=3", IMAGE, "true")


def test_a_lease_outlives_a_chain_node_that_does_not_answer(market: LocalMarket) -> None:
    with Site(market, "story-chain") as site:
        provider = site.provider
        market.chain.pause()
        try:
            site.ticks(3)
            for _ in range(150):  # enough traffic for the close to be worth its fee
                assert site.answers()
            mine = channel(market.tenant, provider.key)
        finally:
            market.chain.unpause()
    market.chain.pause()
    try:
        market.tenant.ask("POST", f"/v1/channels/{mine['channel']}/close")
        assert wait_until(lambda: channel(provider, market.tenant.key)["state"] == "closing", 10)
    finally:
        market.chain.unpause()
    assert wait_until(lambda: channel(provider, market.tenant.key)["settled"], 40)


def test_a_second_daemon_in_the_same_home_is_refused(market: LocalMarket) -> None:
    command = [*DOCKAGE, "--home", str(market.tenant.home), "daemon"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "already runs" in done.stderr
    assert market.tenant.is_up()
