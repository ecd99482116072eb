"""Any JSON whatever: the filter answers, never crashes, and what it lets through is inside the lease."""

from __future__ import annotations

import string
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.domain.units import GIB
from dockage.protocol.docker import names
from dockage.protocol.docker.capabilities import GRANTED
from dockage.protocol.docker.create import GUARDED, Place, Resolved, creation, wants
from dockage.protocol.docker.execution import exec_body
from dockage.protocol.docker.fields import CONFIG, ENDPOINT, HOST_CONFIG, RESOURCES, Fate
from dockage.protocol.docker.network_create import parse as parse_network
from dockage.protocol.docker.refusal import Refused
from dockage.protocol.docker.refusals import refusals, update_refusals
from dockage.protocol.docker.routes import match
from dockage.protocol.docker.update import update_body
from dockage.protocol.docker.views import event, inspected, listed, network, volume
from dockage.protocol.docker.volume_create import parse as parse_volume

LEASE = LeaseId(bytes(range(16)))
PLACE = Place(LEASE, "/dockage/x", "dkg-000102030405", Resources(2000, GIB, GIB), "/run/guard")

words = st.sampled_from(
    "a web /data host container:x none default bridge name:/x name:/x:ro /etc:/x volume bind tmpfs size=1g rw 80/tcp "
    "ALL CHOWN NET_ADMIN no-new-privileges seccomp=unconfined json-file local private always nofile 1.1.1.1 h:1.1.1.1 "
    "net.core.somaxconn 1 dockage.lease".split()
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-2, 1 << 40)
    | st.floats(allow_nan=False)
    | words
    | st.text(max_size=5)
)
keys = words | st.sampled_from(
    "Type Source Target Name Soft Hard Config Test Options SizeBytes Aliases".split()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)


def objects(known: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Objects of known and unknown fields; most take few, so that some have nothing to refuse."""
    return st.dictionaries(st.sampled_from(sorted(known)) | st.text(max_size=4), values, max_size=4)


bodies = st.builds(
    lambda config, host, networks: (
        config | {"HostConfig": host, "NetworkingConfig": {"EndpointsConfig": networks}}
    ),
    objects(CONFIG),
    objects(HOST_CONFIG),
    st.dictionaries(words, objects(ENDPOINT), max_size=2),
)


@given(values | bodies)
def test_any_json_is_answered(body: Any) -> None:
    refusals(body)
    update_refusals(body)
    for parse in (parse_volume, parse_network, exec_body):
        if isinstance(body, dict):
            try:
                parse(body)
            except Refused:
                continue


ALLOWED: dict[str, list[Any]] = {
    "Binds": [["v:/x", "/y"], ["v:/x:ro,nocopy"]],
    "Mounts": [
        [{"Type": "tmpfs", "Target": "/t"}],
        [{"Type": "volume", "Source": "", "Target": "/x", "ReadOnly": True}],
    ],
    "CapAdd": [["CHOWN"], ["CAP_SETUID", "kill"]],
    "CapDrop": [["ALL"], ["chown"]],
    "SecurityOpt": [["no-new-privileges"]],
    "NetworkMode": ["none", "back", "container:db", "default", "bridge"],
    "IpcMode": ["private", "none", "container:db"],
    "PidMode": ["container:db"],
    "VolumesFrom": [["db"], ["db:ro"]],
    "Memory": [6 << 20, GIB, 2 * GIB],
    "NanoCpus": [10**8, 3 * 10**9],
    "CpuQuota": [1000, 100_000],
    "PidsLimit": [-1, 1, 4096],
    "Tmpfs": [{"/t": ""}, {"/t": "rw,size=99g"}, {"/t": "size=0,noexec"}],
    "ShmSize": [1, 1 << 35],
    "LogConfig": [{"Type": "none"}, {"Type": "json-file", "Config": {"max-size": "1t"}}],
    "PortBindings": [{"80/tcp": [{"HostPort": "80"}]}],
}
allowed = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(found) for name, found in ALLOWED.items()}
)
mostly_allowed = st.builds(
    lambda body, host: body | {"HostConfig": host | (body["HostConfig"] or {})}, bodies, allowed
)


@given(mostly_allowed | st.builds(lambda host: {"HostConfig": host}, allowed))
def test_what_passes_is_inside_the_lease(body: dict[str, Any]) -> None:
    if refusals(body):
        return
    try:
        need = wants(body)
        containers = dict.fromkeys(need.containers, "1" * 64)
        networks = {each: "dkg-000102030405-" + each for each in need.networks}
        made = creation(body, "web", PLACE, Resolved("sha256:0", need.volumes, (), containers, networks))
    except Refused:
        return
    _inside(made.body)


def _inside(body: dict[str, Any]) -> None:
    host = body["HostConfig"]
    assert body["Image"] == "sha256:0"
    assert body["Labels"][names.LEASE_LABEL] == LEASE.hex()
    assert body.keys() <= CONFIG.keys() | {"HostConfig", "NetworkingConfig"}
    refused = {name for name, field in HOST_CONFIG.items() if field.fate is Fate.REFUSE}
    assert not (host.keys() & refused) - {"CgroupParent", "Privileged"}
    assert (host["CgroupParent"], host["Privileged"], host["CgroupnsMode"]) == (
        "/dockage/x",
        False,
        "private",
    )
    assert host["CapDrop"] == ["ALL"]
    assert set(host["CapAdd"]) <= GRANTED
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["NetworkMode"].startswith(("dkg-000102030405", "container:" + "1" * 64, "none"))
    assert host["PidMode"] in ("", "container:" + "1" * 64)
    assert host["IpcMode"] in ("private", "shareable", "none", "container:" + "1" * 64)
    assert 0 < host["PidsLimit"] <= 4096
    assert 0 < host["Memory"] == host["MemorySwap"] <= GIB
    assert 0 < host["NanoCpus"] <= 2 * 10**9
    assert host["Binds"] == []
    guard, *mounts = host["Mounts"]
    assert guard == {"Type": "bind", "Source": "/run/guard", "Target": GUARDED, "ReadOnly": True}
    for mount in mounts:
        assert mount["Type"] == "tmpfs" or mount["Source"].startswith("dkg-000102030405-")
    assert all(option.count("size=") == 1 for option in host["Tmpfs"].values())


@given(objects(RESOURCES))
def test_an_update_only_carries_resources(body: dict[str, Any]) -> None:
    if not update_refusals(body):
        assert update_body(body).keys() <= RESOURCES.keys()


@given(st.sampled_from(["GET", "POST", "HEAD", "PUT", "DELETE"]), st.text(string.printable, max_size=80))
def test_any_target_is_answered(method: str, target: str) -> None:
    for path in (
        target,
        "/" + target,
        "/containers/" + target,
        "/containers/web/" + target,
        "/v1.41/" + target,
    ):
        try:
            found = match(method, path)
        except Refused:
            continue
        assert all(names.is_name(each.removeprefix("sha256:")) for each in found.references.values())
        assert found.query.keys() <= set(found.route.query)


def test_views_show_nothing_of_the_provider() -> None:
    prefix = names.prefix(LEASE)
    labels = {"a": "b", names.LEASE_LABEL: LEASE.hex(), names.ANONYMOUS_LABEL: "x"}
    mount = {"Type": "volume", "Name": prefix + "v", "Source": "/srv/secret", "Destination": "/d", "RW": True}
    item = {
        "Id": "1", "Name": "/" + prefix + "web", "Names": ["/" + prefix + "web", "/x/link"], "Image": "sha256:1",
        "LogPath": "/srv/secret", "ResolvConfPath": "/srv/secret", "HostsPath": "/srv/secret", "Driver": "overlay2",
        "GraphDriver": {"Data": {"UpperDir": "/srv/secret"}}, "State": {"Pid": 4711, "Status": "running"},
        "Config": {"Labels": labels, "Env": ["A=b"], "NewField": "/srv/secret"},
        "HostConfig": {"CgroupParent": "/srv/secret", "Binds": ["/srv/secret:/d"], "NetworkMode": PLACE.network,
                       "Mounts": [{"Type": "volume", "Source": prefix + "v", "VolumeOptions": "/srv/secret"}]},
        "Labels": labels, "Mounts": [mount, {"Type": "bind", "Source": "/srv/secret"}],
        "NetworkSettings": {"SandboxKey": "/srv/secret", "Networks": {PLACE.network: {"Aliases": [prefix + "web"]}}},
    }  # fmt: skip
    for shown in (inspected(PLACE, item), listed(PLACE, item)):
        assert "secret" not in str(shown)
        assert prefix not in str(shown)
        assert names.LEASE_LABEL not in str(shown)
        assert list(shown["NetworkSettings"]["Networks"]) == ["bridge"]
    assert inspected(PLACE, item)["State"]["Pid"] == 0
    assert inspected(PLACE, item)["HostConfig"]["Binds"] == ["v:/d:rw"]
    found = volume(
        PLACE, {"Name": prefix + "v", "Mountpoint": "/srv/secret", "Options": {"device": "/srv/secret"}}
    )
    assert "secret" not in str(found)
    found = network(
        PLACE, {"Name": prefix + "n", "Options": {"x": "secret"}, "Labels": labels, "Containers": None}
    )
    assert (found["Name"], found["Labels"]) == ("n", {"a": "b"})


def test_an_event_of_another_lease_is_not_shown() -> None:
    mine = {names.LEASE_LABEL: LEASE.hex(), "name": names.prefix(LEASE) + "web", "a": "b"}
    line = {"Type": "container", "Action": "start", "Actor": {"ID": "1", "Attributes": mine}}
    shown = event(PLACE, line)
    assert shown
    assert shown["Actor"]["Attributes"] == {"name": "web", "a": "b"}
    for other in ({names.LEASE_LABEL: "ff" * 16}, {}, {"dockage.lease": LEASE.hex()[:12]}):
        assert event(PLACE, line | {"Actor": {"ID": "1", "Attributes": other}}) is None
    assert event(PLACE, line | {"Type": "image"}) is None
    assert event(PLACE, {}) is None
