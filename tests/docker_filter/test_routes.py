"""The table of endpoints: what a lease answers, and the targets that could be read in two ways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dockage.domain.identity import LeaseId
from dockage.protocol.docker import filters
from dockage.protocol.docker.fields import CONFIG, ENDPOINT, HOST_CONFIG, Fate
from dockage.protocol.docker.refusal import Refused
from dockage.protocol.docker.routes import ROUTES, Action, match

SPEC = Path(__file__).resolve().parents[2] / "docs" / "spec" / "07-engine-api.md"


def test_versions_are_accepted_and_dropped() -> None:
    for target in ("/v1.24/containers/web/json", "/v1.44/containers/web/json", "/containers/web/json"):
        found = match("GET", target)
        assert (found.route.action, found.references) == (Action.CONTAINER_INSPECT, {"container": "web"})


def test_a_literal_route_is_never_a_container() -> None:
    assert match("GET", "/containers/json").route.action is Action.CONTAINER_LIST
    assert match("POST", "/containers/create?name=x").query == {"name": "x"}
    with pytest.raises(Refused):
        match("POST", "/containers/web")


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/info"),
        ("GET", "/version"),
        ("POST", "/build"),
        ("POST", "/commit"),
        ("POST", "/session"),
        ("POST", "/grpc"),
        ("POST", "/auth"),
        ("POST", "/images/create?fromImage=x"),
        ("POST", "/images/load"),
        ("GET", "/images/get"),
        ("GET", "/images/search?term=x"),
        ("POST", "/images/prune"),
        ("POST", "/images/aaaaaaaaaaaa/tag"),
        ("POST", "/images/aaaaaaaaaaaa/push"),
        ("GET", "/images/aaaaaaaaaaaa/history"),
        ("GET", "/containers/web/attach/ws"),
        ("GET", "/containers/web/checkpoints"),
        ("POST", "/containers/web/checkpoints"),
        ("GET", "/swarm"),
        ("GET", "/nodes"),
        ("GET", "/services"),
        ("GET", "/secrets"),
        ("GET", "/plugins"),
        ("POST", "/plugins/pull"),
        ("GET", "/distribution/x/json"),
        ("GET", "/debug/vars"),
        ("PATCH", "/containers/web"),
        ("CONNECT", "/containers/web"),
    ],
)
def test_what_is_not_in_the_table_is_refused(method: str, target: str) -> None:
    with pytest.raises(Refused) as caught:
        match(method, target)
    assert caught.value.status == 403


@pytest.mark.parametrize(
    "target",
    [
        "/containers/../info",
        "/containers/%2e%2e/info",
        "/containers/web%2f..%2f..%2finfo/json",
        "/containers/web%2Fjson/json",
        "/containers//json",
        "//containers/json",
        "/containers/./json",
        "/v1.41/v1.41/containers/json/",
        "/containers/web/json/",
        "/containers/web%00/json",
        "/containers/web%0d%0aX:y/json",
        "/containers/%252e%252e/json",
        "/containers/web;x=1/json",
        "/containers/web#/json",
        "/containers/caf%c3%a9/json",
        "/containers/%ff%fe/json",
        "/containers/\xe9/json",
        "http://docker/containers/json",
        "*",
        "",
        "/",
        "/containers/" + "a" * 200 + "/json",
        "/containers/dkg web/json",
    ],
)
def test_a_target_with_two_readings_is_refused(target: str) -> None:
    with pytest.raises(Refused):
        match("GET", target)


@pytest.mark.parametrize(
    "target",
    [
        "/containers/json?all=1&all=0",
        "/containers/json?secret=1",
        "/containers/web/top?ps_args=-o+pid+--ppid+1",
        "/containers/web/top?ps_args=-C%20init",
        "/containers/web/archive?path=",
        "/containers/web/archive?path=%00",
        "/containers/web/archive?path=" + "a" * 5000,
        "/containers/json?" + "&".join(f"a{n}=1" for n in range(50)),
        "/containers/json?filters=%ff",
    ],
)
def test_a_hostile_query_is_refused(target: str) -> None:
    with pytest.raises(Refused):
        match("GET", target)


def test_only_named_parameters_are_passed_on() -> None:
    assert match("POST", "/containers/web/start?checkpoint=").query == {}
    with pytest.raises(Refused):
        match("POST", "/containers/web/start?checkpoint=x&checkpoint-dir=/etc")
    with pytest.raises(Refused):
        match("DELETE", "/containers/web?link=1")
    assert match("GET", "/containers/web/top?ps_args=-ef").query == {"ps_args": "-ef"}


# -- filters -------------------------------------------------------------------------------------------
LEASE = LeaseId(bytes(range(16)))


def test_both_forms_of_filters_mean_the_same() -> None:
    assert filters.parse('{"label":{"a=b":true,"c":true}}') == filters.parse('{"label":["a=b","c"]}')
    assert filters.parse("") == {}


def test_the_leases_label_is_always_among_them() -> None:
    theirs = {"label": ["dockage.lease=" + "f" * 32], "status": ["running"]}
    confined = filters.of_lease(LEASE, theirs)
    assert confined["label"] == ["dockage.lease=" + "f" * 32, "dockage.lease=" + LEASE.hex()]
    assert json.loads(filters.encode(confined))["status"] == ["running"]


@pytest.mark.parametrize(
    "raw",
    [
        "[]",
        "1",
        "{",
        '{"a":1}',
        '{"a":{"b":false}}',
        '{"a":[1]}',
        '{"a":["' + "x" * 2000 + '"]}',
        "[" * 100_000,
        "\ud800",
    ],
)
def test_strange_filters_are_refused(raw: str) -> None:
    with pytest.raises(Refused):
        filters.parse(raw)


def test_an_unknown_filter_is_not_ignored() -> None:
    with pytest.raises(Refused):
        filters.only({"label!": ["x"]}, frozenset({"label"}))


def test_names_are_matched_without_regular_expressions() -> None:
    def fits(pattern: str, name: str) -> bool:
        return filters.names_match({"name": [pattern]}, name)

    assert fits("eb", "web")
    assert fits("^/web$", "web")
    assert fits("^we", "web")
    assert not fits("^eb", "web")
    assert not fits("we$", "web")
    assert not fits("(a+)+$", "a" * 50)
    assert filters.names_match({}, "anything")


# -- the spec ------------------------------------------------------------------------------------------
def test_the_spec_lists_exactly_the_table() -> None:
    text = SPEC.read_text()
    for route in ROUTES:
        query = ", ".join(f"`{name}`" for name in route.query) or "-"
        assert f"| {route.method} | `{route.path}` | {query} | {route.action.value} |" in text
    assert text.count("| `/") == len(ROUTES)


def test_the_spec_lists_exactly_the_fields() -> None:
    text = SPEC.read_text()
    for title, table in (("Config", CONFIG), ("HostConfig", HOST_CONFIG), ("EndpointsConfig", ENDPOINT)):
        for fate in Fate:
            names = [f"`{name}`" for name, field in table.items() if field.fate is fate]
            assert not names or f"| {title} | {fate.value} | {', '.join(names)} |" in text
