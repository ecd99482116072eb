"""The front's pure parts: what a body asks, what a filter shows, what a view puts back."""

from __future__ import annotations

import json
import re
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.adapters.front import containers as handlers
from dockage.adapters.front import local, routes, system
from dockage.adapters.front.books import Books
from dockage.domain.errors import PeerError, Unavailable, UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.resources import DEFAULT_CONTAINER, Resources
from dockage.domain.units import MIB
from dockage.protocol.docker import front_create as create
from dockage.protocol.docker import front_filters as filters
from dockage.protocol.docker import front_state as state
from dockage.protocol.docker import front_views as views
from dockage.protocol.docker import routes as gate
from dockage.protocol.docker.front_errors import ApiError, status_of
from dockage.protocol.docker.front_state import Before, Container, Network, Publish, Rented, Volume
from dockage.protocol.docker.refusal import Refused
from dockage.protocol.docker.refusals import refusals
from dockage.testing.journal import MemoryJournal
from dockage.wire.heads import Headers
from dockage.wire.http import HttpServer, Request

LEASE = LeaseId(b"L" * 16)
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 70_000) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


def container(name: str = "web", id_: str = "ab" * 32, **body: Any) -> Container:
    return Container(
        id=id_,
        name=name,
        deployment=name,
        lease=LEASE,
        remote=id_,
        image="mine:1",
        need=DEFAULT_CONTAINER,
        body=json.dumps({"Image": "mine:1", **body}).encode(),
    )


# -- what a body asks ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("host", "milli"),
    [
        ({}, 1000),
        ({"NanoCpus": 250_000_000}, 250),
        ({"CpuQuota": 50_000}, 500),
        ({"CpuQuota": 50_000, "CpuPeriod": 25_000}, 2000),
    ],
)
def test_cpus_are_asked_in_three_ways(host: dict[str, int], milli: int) -> None:
    assert create.need({"HostConfig": host}).cpu_milli == milli


def test_each_unstated_limit_has_its_default() -> None:
    need = create.need({"HostConfig": {"Memory": 64 * MIB}})
    assert need == Resources(DEFAULT_CONTAINER.cpu_milli, 64 * MIB, DEFAULT_CONTAINER.disk_bytes)
    assert create.need({"HostConfig": None}) == DEFAULT_CONTAINER


def test_a_lease_grows_only_by_what_is_missing() -> None:
    limits = Resources(1000, 100, 10)
    assert create.shortfall([Resources(400, 60, 5), Resources(600, 40, 5)], limits) == Resources()
    assert create.shortfall([Resources(400, 60, 5), Resources(700, 40, 6)], limits) == Resources(100, 0, 1)


def test_published_ports_ranges_and_all() -> None:
    body = {
        "ExposedPorts": {"80/tcp": {}, "90/tcp": {}, "80/udp": {}},
        "HostConfig": {
            "PortBindings": {
                "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostPort": "9000-9005"}]
            },
            "PublishAllPorts": True,
        },
    }
    found = create.published(body, ["70/tcp"])
    assert found == (
        Publish(80, "0.0.0.0", 8080, 8080),
        Publish(80, "", 9000, 9005),
        Publish(90),
        Publish(80, protocol="udp"),
        Publish(70),
    )


@pytest.mark.parametrize("port", ["0/udp", "0/tcp", "99999", "80/sctp", "x", "", "8²"])
def test_a_port_that_cannot_be_tunnelled_is_refused(port: str) -> None:
    with pytest.raises(ApiError) as refused:
        create.published({"HostConfig": {"PortBindings": {port: [{"HostPort": "1"}]}}})
    assert refused.value.status == 400


def test_what_a_body_reserves_is_what_its_lease_keeps_free() -> None:
    body: dict[str, Any] = {
        "Labels": {"dockage.reserved-cpus": "0.5"},
        "HostConfig": {"NanoCpus": 2_000_000_000, "Memory": 256 * MIB, "MemoryReservation": 64 * MIB},
    }
    need = create.need(body)
    assert need == Resources(2000, 256 * MIB, DEFAULT_CONTAINER.disk_bytes, 1500, 192 * MIB)
    assert create.need({**body, "Labels": {}}).reserved.cpu_milli == 2000
    # a second container brings what it needs, and what it wants to be sure of
    second = Resources(1000, 64 * MIB, 0)
    grown = need + create.shortfall([need, second], need)
    assert grown.reserved == need.reserved + second
    # of a lease that is large enough only more is reserved
    assert create.shortfall([need.hard], need) == Resources(0, 0, 0, -1500, -192 * MIB)
    assert create.shortfall([need], need.hard) == Resources()


def test_networks_volumes_and_peers_of_a_body() -> None:
    body = {
        "HostConfig": {
            "NetworkMode": "front",
            "Binds": ["data:/d:ro", "/anonymous"],
            "Mounts": [
                {"Type": "volume", "Source": "logs", "Target": "/l"},
                {"Type": "tmpfs", "Target": "/t"},
            ],
            "VolumesFrom": ["other:ro"],
            "IpcMode": "container:third",
        },
        "NetworkingConfig": {"EndpointsConfig": {"back": None, "front": {}}},
    }
    assert create.networks(body) == ("front", "back")
    assert create.volumes(body) == {"/d": "data", "/l": "logs"}
    assert create.peers(body) == ("third", "other")
    sent = create.forwarded(body, "sha256:1", {"third": "id3", "other": "id1"}, {"front": "net"})
    assert sent["HostConfig"]["IpcMode"] == "container:id3"
    assert sent["HostConfig"]["VolumesFrom"] == ["id1:ro"]
    assert create.networks(sent) == ("net", "back")
    assert "PortBindings" not in sent["HostConfig"]


def test_only_dockage_labels_are_wishes() -> None:
    assert create.wishes({"Labels": {"dockage.region": "eu", "other": "x"}}) == {"dockage.region": "eu"}


def test_labels_that_a_client_copied_from_what_we_showed_are_no_wishes() -> None:
    shown = {
        "dockage.lease": "1",
        "dockage.price-msat-hour": "2",
        "dockage.reason": "3",
        "dockage.region": "eu",
    }
    assert create.without_shown({"Labels": shown}) == {"Labels": {"dockage.region": "eu"}}


@pytest.mark.parametrize("name", ["a", "", "-x", "a b", "a/b", "ä1", "x" * 300])
def test_bad_names(name: str) -> None:
    with pytest.raises(ApiError):
        create.check_name(name)


@given(st.dictionaries(st.sampled_from(["80/tcp", "0", "x", "53/udp"]), JSON), JSON)
def test_whatever_ports_are_asked_the_answer_is_ports_or_a_refusal(
    bindings: dict[str, Any], more: Any
) -> None:
    body = {"ExposedPorts": more, "HostConfig": {"PortBindings": bindings, "PublishAllPorts": True}}
    try:
        found = create.published(body)
    except ApiError:
        return
    assert all(0 < one.container_port < 65536 and one.first <= one.last < 65536 for one in found)


@given(
    st.dictionaries(
        st.sampled_from(["Binds", "Mounts", "NetworkMode", "IpcMode", "VolumesFrom", "CpuQuota"]), JSON
    )
)
def test_a_body_that_is_not_refused_can_be_read(host: dict[str, Any]) -> None:
    body = {"Image": "x", "HostConfig": host}
    if not refusals(body):
        create.need(body), create.networks(body), create.peers(body), create.volumes(body)
        create.forwarded(body, "sha256:1", {}, {})


# -- filters -------------------------------------------------------------------------------------------
def test_both_forms_of_filters_mean_the_same() -> None:
    assert filters.parse('{"label":{"a=b":true,"c":false}}') == filters.parse('{"label":["a=b"]}')


@pytest.mark.parametrize("text", ["x", "[]", '{"a":1}', '{"a":{"b":1}}', '{"a":[1]}'])
def test_a_filter_in_no_form_is_refused(text: str) -> None:
    with pytest.raises(ApiError):
        filters.parse(text)


def test_labels_must_all_match_and_names_any() -> None:
    items = [
        {"Id": "1", "Names": ["/web"], "Labels": {"a": "1", "b": "2"}, "State": "running"},
        {"Id": "2", "Names": ["/db"], "Labels": {"a": "1"}, "State": "exited", "Status": "Exited (3) now"},
    ]

    def ids(**wanted: tuple[str, ...]) -> list[str]:
        return [item["Id"] for item in filters.select(items, wanted, filters.CONTAINER)]

    assert ids(label=("a=1", "b")) == ["1"]
    assert ids(label=("a=2",)) == []
    assert ids(name=("web", "db")) == ["1", "2"]
    assert ids(name=("^/w",)) == ["1"]
    assert ids(exited=("3",)) == ["2"]
    assert ids(**{"label!": ("b",)}) == ["2"]


@pytest.mark.parametrize(("name", "value"), [("status", "runing"), ("exited", "x"), ("health", "fine")])
def test_a_value_that_cannot_be_is_refused_even_where_nothing_is(name: str, value: str) -> None:
    with pytest.raises(ApiError, match=f"invalid filter '{name}={value}'"):
        filters.select([], {name: (value,)}, filters.CONTAINER)


def test_an_unknown_filter_is_refused_not_ignored() -> None:
    with pytest.raises(ApiError, match="invalid filter 'colour'"):
        filters.select([], {"colour": ("red",)}, filters.CONTAINER)


def test_events_are_chosen_by_type_action_label_and_name() -> None:
    event = {
        "Type": "container",
        "Action": "exec_start: sh",
        "Actor": {"ID": "abc", "Attributes": {"name": "web", "image": "i", "k": "v"}},
    }
    for wanted in (
        {"type": ("container",)},
        {"event": ("exec_start",)},
        {"label": ("k=v",)},
        {"container": ("web",)},
    ):
        assert filters.event_matches(event, wanted)
    for unwanted in ({"type": ("network",)}, {"event": ("die",)}, {"container": ("db",)}, {"odd": ("x",)}):
        assert not filters.event_matches(event, unwanted)


# -- views ---------------------------------------------------------------------------------------------
def test_inspect_shows_what_was_asked() -> None:
    asked = {"NetworkMode": "net", "Binds": ["data:/d"], "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}
    one = container(HostConfig=asked)
    doc = {
        "Id": one.id,
        "Name": "/x",
        "Config": {"Image": "sha256:1", "Labels": {"a": "b"}},
        "HostConfig": {"Binds": ["/srv/x:/d"], "NetworkMode": "dkg", "Memory": 5},
        "NetworkSettings": {"Ports": {"80/tcp": None}, "Networks": {"net": {"NetworkID": "theirs"}}},
        "Mounts": [{"Type": "bind", "Source": "/srv/x", "Destination": "/d"}],
    }
    around = views.Around({"dockage.lease": "1"}, {"80/tcp": (("127.0.0.1", 8080),)}, {"net": "ours"})
    shown = views.inspect(doc, one, around)
    assert (shown["Name"], shown["Config"]["Image"]) == ("/web", "mine:1")
    assert shown["Config"]["Labels"] == {"a": "b", "dockage.lease": "1"}
    assert {key: shown["HostConfig"][key] for key in asked} == asked
    assert shown["HostConfig"]["Memory"] == 5
    assert shown["NetworkSettings"]["Ports"] == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}
    assert shown["NetworkSettings"]["Networks"]["net"]["NetworkID"] == "ours"
    assert shown["Mounts"] == [
        {"Type": "volume", "Name": "data", "Source": "", "Destination": "/d", "Driver": "local"}
    ]


def test_a_running_container_of_an_ended_lease_was_killed() -> None:
    doc = {"State": {"Status": "running", "Running": True, "ExitCode": 0, "Health": {"Status": "healthy"}}}
    over = views.after_the_end(doc, "the provider left", "2026-01-01T00:00:00Z")["State"]
    assert (over["Status"], over["Running"], over["ExitCode"]) == ("exited", False, 137)
    assert over["Error"] == "the provider left"
    assert "Health" not in over
    stopped = {"State": {"Status": "exited", "ExitCode": 3, "FinishedAt": "before"}}
    assert views.after_the_end(stopped, "x", "now")["State"]["ExitCode"] == 3
    assert views.after_the_end(stopped, "x", "now")["State"]["FinishedAt"] == "before"


KEYS = [
    "Config",
    "HostConfig",
    "NetworkSettings",
    "Mounts",
    "State",
    "Ports",
    "Labels",
    "Networks",
    "net",
    "Created",
]


@given(st.dictionaries(st.sampled_from(KEYS), JSON | st.dictionaries(st.sampled_from(KEYS), JSON)))
def test_no_answer_of_a_provider_makes_a_view_crash(doc: dict[str, Any]) -> None:
    one, around = container(), views.Around({"k": "v"}, {"80/tcp": (("127.0.0.1", 1),)}, {})
    for view in (views.inspect, views.item):
        shown = view(doc, one, around)
        assert shown["Id"] == one.id
        msgspec.json.encode(shown)
        values = {"health": "healthy", "status": "running"}
        for name in ("network", "volume", "health", "publish", "status", "ancestor"):
            wanted = {name: (values.get(name, "80"),)}
            filters.select([views.item(doc, one, around)], wanted, filters.CONTAINER)
    over = views.after_the_end(views.inspect(doc, one, around), "over", "now")
    views.item_of_inspect(over, 1)
    assert views.exit_code(over) == over["State"]["ExitCode"] or not isinstance(
        over["State"]["ExitCode"], int
    )
    assert views.is_alive(views.in_state(doc, "paused"))
    assert not views.is_alive(views.in_state(doc, "exited"))


# -- records -------------------------------------------------------------------------------------------
def test_the_books_are_the_same_after_a_restart() -> None:
    journal = MemoryJournal()
    books = Books(journal)
    records = (
        container(),
        Network("cd" * 32, "net", b"{}", "2026-01-01T00:00:00Z", "web", LEASE, "remote"),
        Volume("data", b"{}", "2026-01-01T00:00:00Z"),
        Rented(LEASE, "web", b"P" * 32, 5),
        Before("web", (container(),)),
    )
    books.keep(*records)
    books.keep(gone := container("gone", "ef" * 32))
    books.forget(gone)
    again = Books(journal)
    again.load()
    assert again.shelf == books.shelf
    assert again.container("web") == records[0]
    assert {row.kind for row in journal.load()} == set(state.KINDS.values())


def test_containers_are_found_by_id_name_and_unique_beginning() -> None:
    books = Books(MemoryJournal())
    books.keep(container("web", "aa11" * 16), container("db", "aa22" * 16))
    assert books.container("/web").name == "web"
    assert books.container("aa2").name == "db"
    assert books.container("aa11" * 16).name == "web"
    for ref, status in (("aa", 400), ("nobody", 404), ("", 404)):
        with pytest.raises(ApiError) as refused:
            books.container(ref)
        assert refused.value.status == status


def test_a_deployment_is_empty_without_containers_and_data() -> None:
    books = Books(MemoryJournal())
    assert books.shelf.is_empty("web")
    books.keep(Volume("data", b"{}", "", "web", LEASE))
    assert not books.shelf.is_empty("web")
    books.keep(Volume("data", b"{}", "", "web"))
    assert books.shelf.is_empty("web")


# -- errors and routes ---------------------------------------------------------------------------------
def test_every_error_has_its_status() -> None:
    assert status_of(ApiError(418, "x")) == 418
    assert status_of(Refused(403, "x")) == 403
    assert status_of(UsageError("market.nothing-fits", "x")) == 400
    assert status_of(UsageError("deployment.conflict", "x")) == 409
    assert status_of(Unavailable("peer.unreachable", "x")) == 503
    assert status_of(PeerError("engine.strange", "x")) == 502


def test_paths_lose_their_version_and_versions_have_bounds() -> None:
    assert routes._without_version("/v1.44/containers/json") == "/containers/json"
    assert routes._without_version("/containers/json") == "/containers/json"
    for path, word in (("/v1.45/x", "too new"), ("/v1.23/x", "too old")):
        with pytest.raises(ApiError, match=word):
            routes._without_version(path)


def test_an_older_local_engine_is_asked_in_its_own_version() -> None:
    assert local._at_most("/v1.44/images/json?all=1", (1, 41)) == "/v1.41/images/json?all=1"
    assert local._at_most("/v1.30/images/json", (1, 41)) == "/v1.30/images/json"
    assert local._at_most("/images/json", (1, 41)) == "/images/json"


ENDPOINTS = """
HEAD /_ping; GET /_ping; GET /version; GET /info; GET /events; GET /system/df; POST /commit; POST /auth
POST /build; POST /build/prune; POST /session; POST /grpc
POST /containers/create; GET /containers/json; POST /containers/prune; GET /containers/web/json
POST /containers/web/start; POST /containers/web/stop; POST /containers/web/restart; POST /containers/web/kill
POST /containers/web/wait; POST /containers/web/rename; POST /containers/web/attach; POST /containers/web/resize
POST /containers/web/pause; POST /containers/web/unpause; POST /containers/web/update; POST /containers/web/exec
GET /containers/web/logs; GET /containers/web/stats; GET /containers/web/top; GET /containers/web/changes
GET /containers/web/export; DELETE /containers/web
HEAD /containers/web/archive; GET /containers/web/archive; PUT /containers/web/archive
POST /exec/ID/start; POST /exec/ID/resize; GET /exec/ID/json
GET /images/json; GET /images/web/json; GET /images/web/history; POST /images/create; POST /images/load
GET /images/get; POST /images/web/tag; POST /images/web/push; DELETE /images/web; POST /images/prune
POST /networks/create; GET /networks; GET /networks/net; DELETE /networks/net; POST /networks/prune
POST /networks/net/connect; POST /networks/net/disconnect
POST /volumes/create; GET /volumes; GET /volumes/data; DELETE /volumes/data; POST /volumes/prune
"""
"""What the docker CLI, both generations of compose and docker-py call (Engine API v1.44), swarm and plugins apart."""


@pytest.mark.parametrize("endpoint", re.findall(r"[A-Z]+ /[^;\s]+", ENDPOINTS))
def test_every_endpoint_that_clients_call_is_there(endpoint: str) -> None:
    method, path = endpoint.split()
    path = path.replace("ID", "a" * 64)
    handler, call = routes.find(cast(HttpServer, None), Request(method, f"/v1.44{path}", Headers()))
    if handler in (handlers.forward, handlers.exec_forward):
        assert gate.match(method, f"/v1.41{path}").references
    assert handler is not system.no_swarm
    assert call.path == path
