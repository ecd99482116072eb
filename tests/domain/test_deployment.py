"""Names of deployments: one form of each host, and nobody else's names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.deployment import (
    APP_MAX,
    alias,
    app_label,
    hash32,
    key52,
    long_name,
    may_claim,
    normal_host,
)
from dockage.domain.identity import NodeKey

ZONE = "example.net"
ME, OTHER = NodeKey(b"m" * 32), NodeKey(b"o" * 32)
keys = st.binary(min_size=32, max_size=32).map(NodeKey)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.com.", "example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("a.b", "a.b"),
        ("localhost", ""),
        ("", ""),
        (".", ""),
        ("a..b", ""),
        ("..", ""),
        ("../evil.example", ""),
        ("127.0.0.1", ""),
        ("[::1]", ""),
        ("good.example:80", ""),
        ("-a.example", ""),
        ("a-.example", ""),
        ("a_b.example", ""),
        ("bücher.example", ""),
        ("a.example\n", ""),
        ("a.example\x00", ""),
        ("*.example.com", ""),
        ("\u212aelvin.example", ""),  # lower() makes an ASCII k of it
        ("x" * 64 + ".example", ""),
        (".".join(["x" * 63] * 4), ""),
    ],
)
def test_a_host_has_one_form_or_none(text: str, host: str) -> None:
    assert normal_host(text) == host


@given(st.text(max_size=80) | st.from_regex(r"[a-zA-Z0-9.-]{1,60}", fullmatch=True))
def test_what_is_normal_stays_so_and_is_a_harmless_file_name(text: str) -> None:
    host = normal_host(text)
    assert normal_host(host) == host
    assert not set(host) - set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    assert not host.startswith(".")
    assert ".." not in host


def test_the_names_of_the_spec() -> None:
    assert key52(NodeKey(bytes(32))) == "y" * 52
    assert key52(NodeKey(b"\xff" * 32)) == "9" * 51 + "o"
    assert long_name("web", ME, ZONE) == f"web.{key52(ME)}.example.net"
    assert alias("web", ME, ZONE) == f"web-{hash32(ME)}.example.net"
    assert app_label("My_Shop.v2") == "my-shop-v2"
    assert app_label("__") == "app"


@given(st.text(max_size=80), keys)
def test_every_deployment_has_names_that_are_host_names(name: str, key: NodeKey) -> None:
    assert 0 < len(app_label(name)) <= APP_MAX
    for host in (long_name(name, key, ZONE), alias(name, key, ZONE)):
        assert normal_host(host) == host
        assert may_claim(key, host, ZONE)


@given(keys, keys)
def test_names_in_a_zone_are_their_keys_own(one: NodeKey, other: NodeKey) -> None:
    if one != other:
        assert key52(one) != key52(other)
        assert not may_claim(one, long_name("web", other, ZONE), ZONE)
        assert not may_claim(one, alias("web", other, ZONE), ZONE)


@pytest.mark.parametrize(
    "host",
    ["example.net", "www.example.net", f"{key52(ME)}.example.net", f"x{key52(ME)}.example.net"],
)
def test_nobody_claims_what_is_the_gateways(host: str) -> None:
    assert not may_claim(ME, host, ZONE)


def test_other_domains_are_whose_owner_points_them_here() -> None:
    assert may_claim(ME, "shop.example.com", ZONE)
    assert may_claim(ME, "notexample.net", ZONE)
    assert may_claim(ME, f"api.web.{key52(ME)}.example.net", ZONE)
