"""One test for each way out of a lease that a container's create body could ask for."""

from __future__ import annotations

from typing import Any

import pytest

from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, MIB
from dockage.ports import hosting
from dockage.protocol.docker import names
from dockage.protocol.docker.capabilities import GRANTED
from dockage.protocol.docker.create import Creation, Place, Resolved, creation, wants
from dockage.protocol.docker.execution import exec_body, start_body
from dockage.protocol.docker.network_create import parse as parse_network
from dockage.protocol.docker.refusal import Refused
from dockage.protocol.docker.refusals import endpoint_refusals, refusals, update_refusals
from dockage.protocol.docker.volume_create import parse as parse_volume

LEASE = LeaseId(bytes(range(16)))
PLACE = Place(LEASE, "/dockage/" + LEASE.hex(), "dkg-000102030405", Resources(2000, GIB, GIB))


def host(**fields: Any) -> dict[str, Any]:
    return {"Image": "nginx", "HostConfig": fields}


ESCAPES: list[tuple[str, dict[str, Any]]] = [
    ("Privileged", host(Privileged=True)),
    ("CapAdd", host(CapAdd=["SYS_ADMIN"])),
    ("CapAdd", host(CapAdd=["CAP_SYS_PTRACE"])),
    ("CapAdd", host(CapAdd=["ALL"])),
    ("CapAdd", host(CapAdd=["net_raw"])),
    ("CapAdd", host(CapAdd=[{"x": 1}])),
    ("Devices", host(Devices=[{"PathOnHost": "/dev/sda"}])),
    ("DeviceCgroupRules", host(DeviceCgroupRules=["a *:* rwm"])),
    ("DeviceRequests", host(DeviceRequests=[{"Count": -1, "Capabilities": [["gpu"]]}])),
    ("Binds", host(Binds=["/:/host"])),
    ("Binds", host(Binds=["/var/run/docker.sock:/var/run/docker.sock"])),
    ("Binds", host(Binds=["./x:/x"])),
    ("Binds", host(Binds=["../x:/x"])),
    ("Binds", host(Binds=["name:/x:rshared"])),
    ("Binds", host(Binds=["name:/x:ro:extra"])),
    ("Binds", host(Binds=["name:/x/../../y"])),
    ("Binds", host(Binds=["name:relative"])),
    ("Binds", host(Binds=[{"a": "b"}])),
    ("Mounts", host(Mounts=[{"Type": "bind", "Source": "/", "Target": "/host"}])),
    ("Mounts", host(Mounts=[{"Type": "npipe", "Source": "x", "Target": "/host"}])),
    ("Mounts", host(Mounts=[{"Type": "image", "Source": "theirs", "Target": "/x"}])),
    ("Mounts", host(Mounts=[{"Type": "cluster", "Source": "theirs", "Target": "/x"}])),
    ("Mounts", host(Mounts=[{"Type": "volume", "Source": "/etc", "Target": "/x"}])),
    (
        "Mounts",
        host(
            Mounts=[
                {"Type": "volume", "Source": "v", "Target": "/x", "VolumeOptions": {"Subpath": "../../etc"}}
            ]
        ),
    ),
    (
        "Mounts",
        host(
            Mounts=[
                {"Type": "volume", "Source": "v", "Target": "/x", "BindOptions": {"Propagation": "shared"}}
            ]
        ),
    ),
    (
        "Mounts",
        host(
            Mounts=[
                {
                    "Type": "volume",
                    "Source": "v",
                    "Target": "/x",
                    "VolumeOptions": {
                        "DriverConfig": {
                            "Name": "local",
                            "Options": {"type": "none", "o": "bind", "device": "/"},
                        }
                    },
                }
            ]
        ),
    ),
    ("Mounts", host(Mounts=[{"Type": "tmpfs", "Source": "/etc", "Target": "/x"}])),
    ("Mounts", host(Mounts=[{"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Options": [["suid"]]}}])),
    ("VolumesFrom", host(VolumesFrom=["other:rw,rshared"])),
    ("VolumesFrom", host(VolumesFrom=["../x"])),
    ("NetworkMode", host(NetworkMode="host")),
    ("NetworkMode", host(NetworkMode="host:x")),
    ("NetworkMode", host(NetworkMode="container:")),
    ("NetworkMode", host(NetworkMode="ns:/proc/1/ns/net")),
    ("NetworkMode", host(NetworkMode="service:theirs")),
    ("PidMode", host(PidMode="host")),
    ("IpcMode", host(IpcMode="host")),
    ("UTSMode", host(UTSMode="host")),
    ("UsernsMode", host(UsernsMode="host")),
    ("CgroupnsMode", host(CgroupnsMode="host")),
    ("Cgroup", host(Cgroup="container:x")),
    ("CgroupParent", host(CgroupParent="/")),
    ("Runtime", host(Runtime="runc-root")),
    ("SecurityOpt", host(SecurityOpt=["seccomp=unconfined"])),
    ("SecurityOpt", host(SecurityOpt=["apparmor=unconfined"])),
    ("SecurityOpt", host(SecurityOpt=["no-new-privileges:false"])),
    ("SecurityOpt", host(SecurityOpt=["label=disable"])),
    ("MaskedPaths", host(MaskedPaths=[])),
    ("ReadonlyPaths", host(ReadonlyPaths=[])),
    ("Sysctls", host(Sysctls={"kernel.shm_rmid_forced": "1"})),
    ("Sysctls", host(Sysctls={"net.core.somaxconn": "9" * 5000})),
    ("LogConfig", host(LogConfig={"Type": "syslog", "Config": {"syslog-address": "udp://10.0.0.1"}})),
    ("LogConfig", host(LogConfig={"Type": "json-file", "Config": {"labels": "x"}})),
    ("StorageOpt", host(StorageOpt={"size": "1T"})),
    ("OomScoreAdj", host(OomScoreAdj=-1000)),
    ("OomKillDisable", host(OomKillDisable=True)),
    ("Ulimits", host(Ulimits=[{"Name": "core", "Soft": -1, "Hard": -1}])),
    ("Ulimits", host(Ulimits=[{"Name": "nofile", "Soft": 1, "Hard": 1 << 40}])),
    ("Ulimits", host(Ulimits=[{"Name": "rtprio", "Soft": 99, "Hard": 99}])),
    ("PidsLimit", host(PidsLimit=1 << 30)),
    ("CpusetCpus", host(CpusetCpus="0")),
    ("CpuRealtimeRuntime", host(CpuRealtimeRuntime=950_000)),
    ("BlkioWeight", host(BlkioWeight=1000)),
    ("MemorySwap", host(Memory=64 * MIB, MemorySwap=-1)),
    ("MemorySwap", host(Memory=64 * MIB, MemorySwap=GIB)),
    ("MemorySwappiness", host(MemorySwappiness=100)),
    ("VolumeDriver", host(VolumeDriver="nfs")),
    ("Links", host(Links=["other:db"])),
    ("ExtraHosts", host(ExtraHosts=["provider:host-gateway"])),
    ("Tmpfs", host(Tmpfs={"/x": "suid,dev"})),
    ("Tmpfs", host(Tmpfs={"/x:/y": ""})),
    ("Tmpfs", host(Tmpfs={"/": ""})),
    ("Annotations", host(Annotations={"run.oci.hooks": "x"})),
    ("privileged", host(privileged=True)),  # Go reads keys in any case
    ("Unheard", host(Unheard={"of": 1})),
    ("MacAddress", {"Image": "x", "MacAddress": "02:00:00:00:00:01"}),
    ("Labels", {"Image": "x", "Labels": {names.LEASE_LABEL: "ff" * 16}}),
    ("Labels", {"Image": "x", "Labels": {names.ANONYMOUS_LABEL: "theirs"}}),
    ("hostconfig", {"Image": "x", "hostconfig": {"Privileged": True}}),
    ("Healthcheck", {"Image": "x", "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000}}),
    (
        "EndpointsConfig",
        {"NetworkingConfig": {"EndpointsConfig": {"n": {"IPAMConfig": {"IPv4Address": "10.0.0.1"}}}}},
    ),
    ("EndpointsConfig", {"NetworkingConfig": {"EndpointsConfig": {"n": {"DriverOpts": {"a": "b"}}}}}),
    ("EndpointsConfig", {"NetworkingConfig": {"EndpointsConfig": {"n": {"Links": ["theirs:x"]}}}}),
]


@pytest.mark.parametrize(
    ("field", "body"), ESCAPES, ids=[f"{name}-{n}" for n, (name, _) in enumerate(ESCAPES)]
)
def test_a_way_out_is_refused_by_name(field: str, body: dict[str, Any]) -> None:
    found = refusals(body)
    assert found
    assert field in found[0].field
    assert len(found[0].reason) > 10


CLI_DEFAULTS: dict[str, Any] = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": True, "AttachStderr": True,
    "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None, "Cmd": ["sleep", "1"], "Image": "web",
    "Volumes": {}, "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": {}, "StopTimeout": 0,
    "HostConfig": {
        "Binds": None, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}}, "NetworkMode": "default",
        "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}, "AutoRemove": False, "VolumeDriver": "",
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "VolumesFrom": None, "ConsoleSize": [24, 80],
        "CapAdd": None, "CapDrop": None, "CgroupnsMode": "", "Dns": [], "DnsOptions": [], "DnsSearch": [],
        "ExtraHosts": None, "GroupAdd": None, "IpcMode": "", "Cgroup": "", "Links": None, "OomScoreAdj": 0,
        "PidMode": "", "Privileged": False, "PublishAllPorts": False, "ReadonlyRootfs": False, "SecurityOpt": None,
        "UTSMode": "", "UsernsMode": "", "ShmSize": 0, "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0,
        "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": [], "BlkioDeviceReadBps": [], "CpuPeriod": 0,
        "CpuQuota": 0, "CpuRealtimePeriod": 0, "CpusetCpus": "", "Devices": [], "DeviceCgroupRules": None,
        "DeviceRequests": None, "MemoryReservation": 0, "MemorySwap": 0, "MemorySwappiness": -1,
        "OomKillDisable": False, "PidsLimit": 0, "Ulimits": [], "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0, "MaskedPaths": None, "ReadonlyPaths": None,
    },
    "NetworkingConfig": {"EndpointsConfig": {"default": {
        "IPAMConfig": None, "Links": None, "Aliases": None, "MacAddress": "", "NetworkID": "", "EndpointID": "",
        "Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "", "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0, "DriverOpts": None, "DNSNames": None,
    }}},
}  # fmt: skip
"""As docker 28 sends ``docker run -p 8080:80 web sleep 1``."""


def made(body: dict[str, Any], place: Place = PLACE, **given: Any) -> Creation:
    assert refusals(body) == []
    need = wants(body)
    networks = {each: PLACE.network if each == "bridge" else f"engine-{each}" for each in need.networks}
    containers = {each: f"id-of-{each}" for each in need.containers}
    found = Resolved("sha256:" + "0" * 64, need.volumes, (), containers, networks)._replace(**given)
    return creation(body, "web", place, found)


def test_what_the_cli_sends_by_default_is_made() -> None:
    body = made(CLI_DEFAULTS).body
    config = body["HostConfig"]
    assert body["Cmd"] == ["sleep", "1"]
    assert body["StopTimeout"] == 0
    assert body["Labels"][names.LEASE_LABEL] == LEASE.hex()
    assert config["CgroupParent"] == PLACE.cgroup_parent
    assert config["CapDrop"] == ["ALL"]
    assert set(config["CapAdd"]) == GRANTED
    assert config["SecurityOpt"] == ["no-new-privileges"]
    assert config["PidsLimit"] == 1024
    assert config["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}
    assert config["PortBindings"] == {}
    assert config["NetworkMode"] == PLACE.network
    assert config["Memory"] == config["MemorySwap"] == GIB
    assert config["NanoCpus"] == 2 * 10**9
    assert body["NetworkingConfig"] == {"EndpointsConfig": {PLACE.network: {"Aliases": []}}}


def test_a_drop_of_all_with_some_added_is_dockers_arithmetic() -> None:
    assert made(host(CapDrop=["ALL"], CapAdd=["CAP_CHOWN"])).body["HostConfig"]["CapAdd"] == ["CHOWN"]
    assert "SETUID" not in made(host(CapDrop=["setuid"])).body["HostConfig"]["CapAdd"]


def test_other_networks_are_joined_after_the_first() -> None:
    body = host(NetworkMode="one") | {
        "NetworkingConfig": {"EndpointsConfig": {"one": {}, "two": {"Aliases": ["db"]}}}
    }
    found = made(body)
    assert list(found.body["NetworkingConfig"]["EndpointsConfig"]) == ["engine-one"]
    assert found.later == (("engine-two", {"Aliases": ["db", "web"]}),)


def test_only_resolved_containers_are_joined() -> None:
    body = host(NetworkMode="container:a", PidMode="container:b", IpcMode="container:c", VolumesFrom=["d:ro"])
    config = made(body).body["HostConfig"]
    assert [config[key] for key in ("NetworkMode", "PidMode", "IpcMode", "VolumesFrom")] == [
        "container:id-of-a",
        "container:id-of-b",
        "container:id-of-c",
        ["id-of-d:ro"],
    ]


def test_a_tmpfs_is_never_larger_than_the_memory() -> None:
    config = made(
        host(Memory=64 * MIB, Tmpfs={"/a": "", "/b": "size=1g,mode=755", "/c": "size=0"}, ShmSize=GIB)
    ).body["HostConfig"]
    limit = 64 * MIB
    assert config["Tmpfs"] == {"/a": f"size={limit}", "/b": f"mode=755,size={limit}", "/c": f"size={limit}"}
    assert config["ShmSize"] == limit


def test_where_memory_that_nobody_reserved_runs_out_those_who_did_not_reserve_theirs_go_first() -> None:
    soft = PLACE._replace(limits=Resources(2000, GIB, GIB, memory_soft_bytes=1))
    assert made(host(OomScoreAdj=5)).body["HostConfig"]["OomScoreAdj"] == 5
    assert made(host(OomScoreAdj=5), soft).body["HostConfig"]["OomScoreAdj"] == 1000


@pytest.mark.parametrize("wish", [{"Memory": 2 * GIB}, {"NanoCpus": 3 * 10**9}, {"CpuQuota": 300_000}])
def test_more_than_the_lease_has_is_refused(wish: dict[str, int]) -> None:
    with pytest.raises(Refused, match="lease's"):
        made(host(**wish))


@pytest.mark.parametrize(
    "options",
    [
        {"type": "none", "o": "bind", "device": "/"},
        {"size": "1g", "o": "x"},
        {"device": "/"},
        "x",
        {"size": 1},
    ],
)
def test_a_volume_has_no_option_but_its_size(options: object) -> None:
    with pytest.raises(Refused):
        parse_volume({"Name": "v", "DriverOpts": options})
    assert parse_volume({"Name": "v", "DriverOpts": {"size": "5G"}}).size == 5 * GIB


@pytest.mark.parametrize(
    "body",
    [
        {"Name": "v", "Driver": "nfs"},
        {"Name": "../v"},
        {"Name": "v", "Labels": {names.LEASE_LABEL: "00"}},
        {"Name": "v", "ClusterVolumeSpec": {"Group": "x"}},
    ],
)
def test_a_volume_is_local_and_plain(body: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        parse_volume(body)


@pytest.mark.parametrize(
    "more",
    [
        {"Driver": "macvlan"},
        {"Driver": "host"},
        {"Options": {"com.docker.network.bridge.name": "docker0"}},
        {"Options": {"parent": "eth0"}},
        {"IPAM": {"Config": [{"Subnet": "192.168.0.0/16"}]}},
        {"IPAM": {"Driver": "evil"}},
        {"Scope": "swarm"},
        {"Ingress": True},
        {"ConfigFrom": {"Network": "x"}},
        {"EnableIPv6": True},
        {"Labels": {names.NETWORK_LABEL: "0"}},
        {"Name": "bridge"},
        {"Name": "host"},
        {"Name": "a/b"},
    ],
)
def test_a_network_is_a_plain_bridge(more: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        parse_network({"Name": "net"} | more)


def test_a_network_as_clients_make_it() -> None:
    compose = {
        "CheckDuplicate": True,
        "Driver": "",
        "IPAM": {"Driver": "default", "Options": {}, "Config": []},
    }
    assert parse_network({"Name": "app_default", "Labels": {"a": "b"}, "Internal": True} | compose).internal


def test_an_exec_is_never_privileged() -> None:
    with pytest.raises(Refused):
        exec_body({"Cmd": ["sh"], "Privileged": True})
    with pytest.raises(Refused):
        exec_body({"Cmd": ["sh"], "privileged": True})
    with pytest.raises(Refused):
        start_body({"Cmd": ["sh"]})
    assert exec_body({"Cmd": ["sh"], "Privileged": False, "Tty": True}) == {"Cmd": ["sh"], "Tty": True}


def test_an_update_and_a_connection_know_the_same_limits() -> None:
    assert update_refusals({"CpusetCpus": "0"})
    assert update_refusals({"Memory": 64 * MIB, "MemorySwap": -1})
    assert update_refusals({"Privileged": True})
    assert update_refusals([]) == [("body", "must be a JSON object")]
    assert endpoint_refusals({"IPAMConfig": {"IPv4Address": "1.2.3.4"}})
    assert endpoint_refusals({"Aliases": ["a", 1]})


def test_the_label_is_the_ports() -> None:
    assert names.LEASE_LABEL == hosting.LEASE_LABEL


@pytest.mark.parametrize(
    "name", ["", "/", "a/b", "../a", "a b", "-a", ".a", "é", "a" * 129, "a\n", "a\0", "%2e%2e"]
)
def test_a_hostile_name_is_refused(name: str) -> None:
    with pytest.raises(Refused):
        names.engine_name(LEASE, name)


def test_a_name_that_looks_like_anothers_is_only_a_name() -> None:
    other = "dkg-ffffffffffff-web"
    assert names.engine_name(LEASE, other) == f"{names.prefix(LEASE)}{other}"
    assert names.tenant_name(LEASE, names.engine_name(LEASE, other)) == other


def test_errors_tell_nothing_of_others_and_of_the_machine() -> None:
    told = names.scrub(
        LEASE,
        f'The name "/{names.prefix(LEASE)}web" is used; see dkg-ffffffffffff-secret, '
        "stat /var/lib/docker/overlay2/abc/merged: /run/x.sock, /usr/bin/app",
    )
    assert told == 'The name "/web" is used; see (hidden), stat (provider): (provider), /usr/bin/app'
