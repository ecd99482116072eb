"""What `up` says while an app is not yet public."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dockage.cli import public
from dockage.cli.commands import provide, up

UNPROVEN = {
    "code": "site.unproven",
    "text": "nothing says that www.shop.example is yours: set the record ...",
}
GATEWAY = {"gateway": "ab" * 32, "lease": "cd" * 16, "open": False, "reason": UNPROVEN}
PROJECT = SimpleNamespace(name="shop", gateways=1, public=("web",))


def session(said: list[str], **of: Any) -> Any:
    found = {**public.NOTHING, "deployment": "shop", **of}
    client = SimpleNamespace(get=lambda _: {"deployments": [found]})
    return SimpleNamespace(client=client, say=said.append)


def test_a_record_that_our_user_has_to_set_is_said_at_once() -> None:
    said: list[str] = []
    up._public(session(said, gateways=[GATEWAY]), PROJECT, 3600)  # type: ignore[arg-type]
    assert said == [
        "not public at gateway abababab yet: nothing says that www.shop.example is yours: set the record ... "
        "(site.unproven)"
    ]


def test_what_is_open_leaves_a_gateway_that_refused_to_be_told() -> None:
    said: list[str] = []
    urls = [{"service": "web", "url": "https://www.shop.example"}]
    there = {**GATEWAY, "open": True, "reason": None}
    of = up._public(session(said, gateways=[there, GATEWAY], urls=urls), PROJECT, 3600)  # type: ignore[arg-type]
    assert of["urls"] == urls
    assert len(said) == 1, "the other way in is missing, and that is said"


def test_a_record_that_is_missing_is_said_beside_what_is_open() -> None:
    said: list[str] = []
    urls = [{"service": "web", "url": "https://shop.gw.example"}]
    of = up._public(session(said, gateways=[{**GATEWAY, "open": True}], urls=urls), PROJECT, 3600)  # type: ignore[arg-type]
    assert of["urls"] == urls
    assert len(said) == 1
    assert said[0].startswith(
        "not all of it is public at gateway abababab yet: nothing says that www.shop.example"
    )


def test_any_other_refusal_is_waited_for_and_then_said() -> None:
    said: list[str] = []
    silent = {**GATEWAY, "reason": {"code": "site.resolver", "text": "try again"}}
    up._public(session(said, gateways=[silent]), PROJECT, 0)  # type: ignore[arg-type]
    assert said == [
        "waiting for a gateway",
        "not public at gateway abababab yet: try again (site.resolver)",
    ]


def test_a_gateway_sells_names_and_not_cores() -> None:
    machine = {
        "architecture": "x86_64",
        "engine_version": "gateway",
        "cgroup_version": 0,
        "cgroup_driver": "",
    }
    provider = {
        "capacity": {}, "region": "earth", "free_for": [], "published_at": 3, "only_own": False, "unpriced": None,
        "price_policy": "fixed", "tariff": {},
    }  # fmt: skip
    told = {"node": "ab" * 32, "addresses": [], "machine": {**machine, "warnings": []}, "provider": provider}
    summary = provide.summary({**told, "machines": 0})
    assert "names and ports" in summary
    assert "cgroup" not in summary
    assert "cores" not in summary
