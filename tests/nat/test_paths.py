"""Two nodes behind two NATs, and nobody in between but a node of ours: what goes direct, what works anyway."""

from __future__ import annotations

from nat import topology
from nat.conftest import Street

RELAY = f"http://{topology.PUBLIC}:3340/"
NO_FRONT = {"tenant": {"enabled": False, "checks": False}}
NAMED = {topology.PUBLIC, "198.51.100.2", "10.82.0.2"}
"""The public machine, the other router, and what the other node says of itself."""
ROUTER = {"10.81.0.1", "239.255.255.250"}
"""And how one asks for a router that forwards ports (SSDP)."""
ZONE = "gate.example"
HOMES = ("10.82.", "198.51.100.2")
"""Of the provider: its machine, and what its router looks like from the street."""
SECOND = f"http://{topology.PUBLIC}:3341/"


def is_own_matter(address: str) -> bool:
    """The kernel's own: neighbours, routers and groups of the link."""
    return address.startswith(("224.0.0.", "ff02:", "fe80:"))


def test_two_ordinary_nats_are_crossed_directly(street: Street) -> None:
    _, b = street.homes(symmetric=False)
    street.introduce(b, relay=RELAY, direct="198.51.100.2:")
    found = street.a.do("call", key=b, until="direct")
    assert found["path"] == "direct", found


def test_two_symmetric_nats_are_crossed_by_the_relay_that_a_market_node_runs(street: Street) -> None:
    _, b = street.homes(symmetric=True)
    street.introduce(b, relay=RELAY)
    before = street.public.do("relayed")
    assert street.a.do("call", key=b)["path"] == "relay"
    assert street.public.do("relayed") > before


def test_a_direct_path_that_is_cut_is_replaced_by_the_relay_and_comes_back(street: Street) -> None:
    _, b = street.homes(symmetric=False)
    street.introduce(b, relay=RELAY, direct="198.51.100.2:")
    assert street.a.do("call", key=b, until="direct")["path"] == "direct"
    topology.cut(True)
    try:
        found = street.a.do("call", key=b, until="relay", limit=40)
        assert found["path"] == "relay", found
    finally:
        topology.cut(False)
    found = street.a.do("call", key=b, until="direct", limit=60)
    assert found["path"] == "direct", found


def test_when_its_relay_dies_a_node_is_soon_found_at_another(street: Street) -> None:
    _, b = street.homes(symmetric=True, relays=[RELAY, SECOND])
    first = street.b.do("address", relay="http")["relay"]
    port, other = (3340, SECOND) if first == RELAY else (3341, RELAY)
    street.introduce(b)
    assert street.a.do("call", key=b)["path"] == "relay"
    street.public.do("kill_relay", port=port)
    try:
        street.introduce(b, relay=other)
        found = street.a.do("call", key=b, until="relay", limit=20)
        assert found["path"] == "relay", found
    finally:
        street.public.do("relay", at=topology.PUBLIC, port=port)


def test_a_provider_behind_a_nat_serves_a_tenant_behind_another_and_the_public_through_a_gateway(
    street: Street,
) -> None:
    """Whole daemons and real leases, by the market of the public one and the relay that it tells of; only the machine
    is a fake. The public one is a gateway, too: name server, Caddy, relay, peer link, NAT, container."""
    for side in "AB":
        topology.translate(side, symmetric=True)
    node = {"bind": f"{topology.PUBLIC}:4720", "market": True, "stamp_bits": 0}
    relay = {"listen": f"{topology.PUBLIC}:3342"}
    sells = {"enabled": True, "price_preset": "free"}
    at = {name: f"{topology.PUBLIC}:{port}" for name, port in (("http", 80), ("tls", 443), ("dns", 53))}
    names = {"enabled": True, "zone": ZONE, "public": [topology.PUBLIC], "acme": "internal", **at}
    parts = {"relay": relay, "provider": sells, "gateway": names}
    public = street.public.do("daemon", config={"node": node, **parts, **NO_FRONT})
    home = {"seeds": [f"{public['key']}@{topology.PUBLIC}:4720"], "stamp_bits": 0}
    provider = street.b.do("daemon", config={"node": home, "provider": sells, **NO_FRONT})["key"]
    street.a.do("daemon", config={"node": home, **NO_FRONT})
    rented = street.a.do("rent", provider=provider)
    assert rented["rented"] < 20
    street.b.do("contain", lease=rented["lease"])
    got = street.a.do("get", lease=rented["lease"], provider=provider)
    assert got["answer"].startswith("HTTP/1.1 200 OK")
    assert got["answer"].endswith("from behind the other router\n")
    assert got["path"] == "relay"
    host = street.a.do("expose", lease=rented["lease"], provider=provider, zone=ZONE)
    shown = [street.a.do("visit", at=at["tls"], host=host)]
    assert shown[0].startswith("HTTP/1.1 200 OK")
    assert shown[0].endswith("from behind the other router\n")
    shown.append(street.a.do("visit", at=at["http"], host=host, tls=False))
    shown.append(street.a.do("visit", at=at["tls"], host=host, named="other.example"))
    street.b.do("contain_no_more")
    shown.append(street.a.do("visit", at=at["tls"], host=host, method="POST"))
    assert [page.split(" ")[1] for page in shown] == ["200", "308", "421", "502"]
    told = street.a.do("names", at=at["dns"], names=[host, f"_web._tcp.{host}", ZONE, f"x.{ZONE}"])
    assert any(f"IN A {topology.PUBLIC}" in each for each in told)
    for each in (*shown, *told):
        assert not [home for home in HOMES if home in each], each
        assert provider not in each


def test_nobody_is_spoken_to_but_who_was_named_the_other_node_and_the_own_router(street: Street) -> None:
    """Also by the tests before, in whatever order: no server of the transport's makers, no name server, nobody."""
    _, b = street.homes(symmetric=False)
    street.introduce(b, relay=RELAY, direct="198.51.100.2:")
    street.a.do("call", key=b, until="direct")
    others = {*NAMED, *ROUTER}
    assert {to for to in street.a.do("spoken_to") if to not in others and not is_own_matter(to)} == set()
