"""What labels ask to be public, and what a gateway is asked to serve for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.deployment import alias, long_name, may_claim, normal_host
from dockage.domain.doors import Door, fits, read_doors, sites, urls
from dockage.domain.errors import UsageError
from dockage.domain.identity import NodeKey
from dockage.domain.offer import Ingress

ME = NodeKey(b"t" * 32)
GATEWAY = Ingress("gw.example", ("203.0.113.7",), 20000, 20009)
OWN_ONLY = Ingress("", ("203.0.113.7",))


def test_a_port_alone_is_http_with_a_name() -> None:
    [door] = read_doors("web", "80")
    assert door == Door("web", 80)
    [site] = sites([door], "shop", ME, GATEWAY)
    assert site.mode == "terminate"
    assert site.hosts[:2] == (alias("shop", ME, "gw.example"), long_name("shop", ME, "gw.example"))
    assert urls([site], GATEWAY) == (("web", f"https://{site.hosts[0]}"),)


def test_own_names_come_first() -> None:
    doors = read_doors("web", "443/tls", "Shop.Example.ORG., www.example.org")
    [site] = sites(doors, "shop", ME, GATEWAY)
    assert site.mode == "pass"
    assert site.hosts[:2] == ("shop.example.org", "www.example.org")
    assert sites(doors, "shop", ME, OWN_ONLY)[0].hosts == ("shop.example.org", "www.example.org")


def test_each_service_has_a_name_of_its_own_that_the_others_do_not_change() -> None:
    web = read_doors("web", "80")
    alone, both = (sites(x, "shop", ME, GATEWAY) for x in (web, [*web, *read_doors("zoo", "81")]))
    assert alone[0] == both[0]
    hosts = [host for site in both for host in site.hosts]
    assert len(set(hosts)) == len(hosts)


def test_ports_of_the_gateway_are_the_same_each_time_and_others_once_they_were_taken() -> None:
    doors = read_doors("game", "27015/udp 27016/udp, 22/tcp")
    first = [site.public_port for site in sites(doors, "shop", ME, GATEWAY)]
    assert first == [site.public_port for site in sites(doors, "shop", ME, GATEWAY)]
    assert first != [site.public_port for site in sites(doors, "shop", ME, GATEWAY, attempt=1)]
    assert all(20000 <= port <= 20009 for port in first)
    [asked] = sites(read_doors("game", "20003:27015/udp"), "shop", ME, GATEWAY)
    assert urls([asked], GATEWAY) == (("game", "udp://gw.example:20003"),)


def test_which_gateways_can_serve_it() -> None:
    assert fits(read_doors("web", "80"), GATEWAY)
    assert not fits(read_doors("web", "80"), OWN_ONLY)
    assert fits(read_doors("web", "80", "www.example.org"), OWN_ONLY)
    assert not fits(read_doors("web", "22/tcp"), OWN_ONLY)
    assert not fits(read_doors("web", "443:22/tcp"), GATEWAY)


@pytest.mark.parametrize(
    ("public", "host", "code"),
    [
        ("0", "", "label.public"),
        ("65536", "", "label.public"),
        ("80/ftp", "", "label.public"),
        ("8080:80", "", "label.public"),
        ("80, 443/tls", "", "label.public"),
        ("../80", "", "label.public"),
        ("99999999999999999", "", "label.public"),
        ("", "www.example.org", "label.host"),
        ("22/tcp", "www.example.org", "label.host"),
        ("80", "localhost", "label.host"),
        ("80", "*.example.org", "label.host"),
        ("80", "https://example.org/", "label.host"),
        ("80", ",".join(f"a{n}.example.org" for n in range(13)), "label.host"),
    ],
)
def test_what_makes_no_sense_is_refused(public: str, host: str, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_doors("web", public, host)
    assert caught.value.code == code


@given(
    st.lists(st.tuples(st.text(max_size=80), st.integers(1, 65535)), min_size=1, max_size=8, unique=True),
    st.text(max_size=80),
    st.binary(min_size=32, max_size=32),
)
def test_what_is_asked_for_is_always_ours_and_a_host(
    services: list[tuple[str, int]], app: str, key: bytes
) -> None:
    me = NodeKey(key)
    for site in sites([Door(name, port) for name, port in services], app, me, GATEWAY):
        assert all(may_claim(me, host, "gw.example") for host in site.hosts)
        assert all(normal_host(host) == host for host in site.hosts)
