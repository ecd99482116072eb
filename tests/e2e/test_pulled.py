"""An image that a registry alone has, run by a stranger: committed from a lease, pushed, forgotten, run by name."""

from __future__ import annotations

from devtools.localmarket import LocalMarket
from e2e.stories import IMAGE
from registrylab import registry


def test_what_is_in_a_registry_only_is_pulled_and_runs_on_a_strangers_machine(market: LocalMarket) -> None:
    with registry() as host:
        name = f"{host}/stories/made:1"
        market.docker("run", "--name", "story-made", IMAGE, "sh", "-c", "echo made > /made")
        market.docker("commit", "story-made", name)
        market.docker("rm", "story-made")
        market.docker("push", name)
        market.docker("rmi", name)
        try:
            done = market.docker("run", "--rm", "--name", "story-pulled", name, "cat", "/made")
            assert done.stdout == "made\n"
            assert f"Downloaded newer image for {name}" in done.stderr
        finally:
            market.docker("rmi", "-f", name, check=False)
