"""An engine's own bridge, and with it its own addresses.

Making a bridge is atomic in the kernel, so the name of the bridge is the claim of a slot: engines of
several checkouts on one machine never share a subnet. What the machine looked like before the first
engine is noted in the bridge's alias, where the last one to leave finds it.
"""

from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from devtools import rules
from devtools.shell import Failed, run, works

PREFIX = "dkengine"
SLOTS = range(40)
NAME = re.compile(rf"{PREFIX}\d+")
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


class Bridge(NamedTuple):
    slot: int

    @property
    def name(self) -> str:
        return f"{PREFIX}{self.slot}"

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(f"10.{200 + self.slot}.0.0/16")

    @property
    def address(self) -> str:
        return f"{self.network[1]}/24"

    @property
    def pool(self) -> str:
        """Where the networks of compose projects and leases get their subnets from."""
        return f"10.{200 + self.slot}.128.0/17"


def claim() -> Bridge:
    before = machine_before()
    taken = routed_networks()
    for bridge in map(Bridge, SLOTS):
        if not any(bridge.network.overlaps(other) for other in taken) and make(bridge):
            run("ip", "link", "set", "dev", bridge.name, "alias", json.dumps(before, separators=(",", ":")))
            return bridge
    raise Failed(f"all {len(SLOTS)} places for an engine are taken: see ip link show type bridge")


def make(bridge: Bridge) -> bool:
    if not works("ip", "link", "add", bridge.name, "type", "bridge"):
        return False
    run("ip", "address", "add", bridge.address, "dev", bridge.name)
    run("ip", "link", "set", "dev", bridge.name, "up")
    return True


def routed_networks() -> list[ipaddress.IPv4Network]:
    routes = json.loads(run("ip", "-4", "-json", "route", "show", "table", "all") or "[]")
    wheres = [str(route.get("dst", "default")) for route in routes]
    return [ipaddress.IPv4Network(dst) for dst in wheres if dst[:1].isdigit()]


def machine_before() -> dict[str, Any]:
    """How the machine was before the first of our engines: asked of it, or of the engines there are."""
    for link in bridges():
        if link.get("ifalias", "").startswith("{"):
            noted: dict[str, Any] = json.loads(link["ifalias"])
            return noted
    state = rules.snapshot()
    return {
        "chains": bool(state.docker_chains()),
        "forward": state.forward_policy(),
        "ip_forward": FORWARDING.read_text().strip(),
    }


def bridges() -> list[dict[str, Any]]:
    links = json.loads(run("ip", "-json", "link", "show", "type", "bridge") or "[]")
    return [link for link in links if NAME.fullmatch(link.get("ifname", ""))]


def release(bridge: Bridge, networks: list[str]) -> None:
    """Take the bridge away, the engine's further *networks* (interface names), and every rule for them."""
    before = machine_before()
    words = {bridge.name, *networks}
    rules.remove_naming(words | rule_words_inside(bridge.network))
    for name in words:
        works("ip", "link", "delete", name)
    if bridges():
        return
    if not before["chains"]:
        rules.remove_docker_chains(before["forward"])
    FORWARDING.write_text(before["ip_forward"])


def rule_words_inside(network: ipaddress.IPv4Network) -> set[str]:
    """The words of the present rules that are addresses of *network*: subnets, hosts, host:port."""
    words = {word for rule in rules.snapshot().rules for word in rule.text.split()}
    return {word for word in words if is_inside(word, network)}


def is_inside(word: str, network: ipaddress.IPv4Network) -> bool:
    try:
        return ipaddress.IPv4Network(word.split(":")[0], strict=False).subnet_of(network)
    except ValueError:
        return False
