"""A newcomer who knows nobody but the local network, with real daemons and real multicast DNS on loopback."""

from __future__ import annotations

from collections.abc import Callable

from dockage.cli.client import Client
from dockage.cli.process import wait_until

from .homes import ON_LOOPBACK, Run

ON_LAN = ("--lan", "--set", 'node.lan_interfaces=["127.0.0.1"]', "--set", "tenant.engine=", *ON_LOOPBACK)


def test_a_newcomer_enters_by_the_local_network(at: Callable[[str], Run]) -> None:
    old, new = at("old"), at("new")
    old("daemon", "--market", "--detach", *ON_LAN)
    new("daemon", "--detach", *ON_LAN)
    client = Client(new.home)
    assert wait_until(lambda: client.get("status")["market"]["found_by"], 60)
    assert "1 node, found by the local network" in new("status")
    assert client.post("market")["offers"] == []
