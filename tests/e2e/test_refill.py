"""A real lease outlives its real channel: the successor pays, the old one is settled, the container never stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from devtools.localmarket import LocalMarket
from devtools.shell import run, wait_until
from e2e.stories import IMAGE, channels, leases

NAME = "story-refill"
CAPACITY = 8_000
"""About ten seconds of half a core by the prices of this market."""


def test_a_channel_that_runs_dry_is_followed_by_another_and_the_container_never_stops(
    market: LocalMarket, provider_engine: Path
) -> None:
    bob, tenant = market.providers["bob"], market.tenant
    for old in paying(market, bob.key):  # of earlier stories
        tenant.ask("POST", f"/v1/channels/{old['channel']}/close")
    labels = [f"--label=dockage.provider={bob.key[:12]}", f"--label=dockage.channel-sat={CAPACITY}"]
    busy = ("sh", "-c", "while :; do :; done")
    market.docker("run", "-d", f"--name={NAME}", "--cpus=0.5", *labels, IMAGE, *busy)
    try:
        first = paying(market, bob.key)[-1]
        lease = leases(market)[-1]
        assert (first["capacity_sat"], lease["state"]) == (CAPACITY, "running")
        began = container(market)["State"]["StartedAt"]

        def moved_on() -> bool:
            newest = paying(market, bob.key)[-1]
            return newest["channel"] != first["channel"] and newest["paid_sat"] > CAPACITY // 8

        assert wait_until(moved_on, 60)
        assert wait_until(lambda: of(market, first)["settled"] and earned(bob, first)["settled"], 30)
        assert of(market, first)["remaining_sat"] == 0

        now = next(x for x in leases(market) if x["lease"] == lease["lease"])
        assert (now["state"], now["reason"]) == ("running", None)
        assert container(market)["State"]["StartedAt"] == began
        assert pauses(provider_engine, lease["lease"]) == []
    finally:
        market.docker("rm", "--force", NAME)
    assert wait_until(lambda: all(x["state"] == "ended" for x in leases(market)), 30)


def paying(market: LocalMarket, peer: str) -> list[dict[str, Any]]:
    return [c for c in channels(market.tenant) if c["peer"] == peer and c["state"] in ("funded", "open")]


def of(market: LocalMarket, channel: dict[str, Any]) -> dict[str, Any]:
    return earned(market.tenant, channel)


def earned(node: Any, channel: dict[str, Any]) -> dict[str, Any]:
    return next(c for c in channels(node) if c["channel"] == channel["channel"])


def container(market: LocalMarket) -> Any:
    (found,) = json.loads(market.docker("inspect", NAME).stdout)
    return found


def pauses(engine: Path, lease: str) -> list[str]:
    """What the provider's engine itself remembers of this lease's containers: each freeze leaves an event."""
    asked = ("--filter=event=pause", f"--filter=label=dockage.lease={lease}", "--since=5m", "--until=0s")
    return run("docker", f"--host=unix://{engine}", "events", *asked).splitlines()
