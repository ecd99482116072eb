"""The allow-list of a container's fields, one line each: what may be asked, and what becomes of it.

KEEP   goes to the engine as it came, once its check passed.
FORCE  the check tells the tenant what it cannot have; the engine gets the provider's own value (create.py).
DROP   belongs to the tenant's side, or says nothing: accepted, not passed on.
REFUSE only the default will do.
A field that is not here is refused unless it has a default value: a newer engine cannot widen the list.
Order and wording follow the Engine API (v1.44, ContainerCreate).
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

from dockage.domain.units import GIB, MIB

from . import capabilities, volumes
from .names import INTERNAL_LABELS
from .values import (
    Check,
    anything,
    each,
    either,
    flag,
    inner_path,
    ip_address,
    mapping,
    matching,
    nothing,
    number,
    one_of,
    record,
    text,
)

SECOND = 1_000_000_000
MEMORY_MAX = 1 << 50
PIDS_DEFAULT, PIDS_MAX = 1024, 4096
"""A fork bomb meets this before the provider notices it; a JVM or a postgres has some hundred."""
SHM_MAX = 64 * GIB
REFERENCE = r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}"


class Fate(Enum):
    KEEP = "keep"
    FORCE = "force"
    DROP = "drop"
    REFUSE = "refuse"


class Field(NamedTuple):
    fate: Fate
    check: Check


def keep(check: Check) -> Field:
    return Field(Fate.KEEP, check)


def force(check: Check) -> Field:
    return Field(Fate.FORCE, check)


def drop(check: Check = anything) -> Field:
    return Field(Fate.DROP, check)


def refuse(why: str) -> Field:
    return Field(Fate.REFUSE, nothing(why))


def _label(key: Any) -> str:
    if not isinstance(key, str) or not 0 < len(key) <= 512:
        return "a label's name must have 1 to 512 characters"
    return f"{key} is set by the provider" if key in INTERNAL_LABELS else ""


words = either(text(65536), each(text(65536)))
labels = mapping(_label, text(65536))
port = matching(r"\d{1,5}(-\d{1,5})?(/(tcp|udp))?", "must be a port such as 80/tcp")
duration = either(
    number(0, 0), number(SECOND, 86_400 * SECOND, "must be at least one second, in nanoseconds")
)
healthcheck = record(
    {
        "Test": each(text(65536)),
        "Interval": duration,
        "Timeout": duration,
        "StartPeriod": number(0, 86_400 * SECOND),
        "StartInterval": duration,
        "Retries": number(0, 1000),
    }
)

CONFIG: dict[str, Field] = {
    "Hostname": keep(matching(r"[a-zA-Z0-9_.-]{1,255}", "must be a host name")),
    "Domainname": keep(matching(r"[a-zA-Z0-9_.-]{1,255}", "must be a domain name")),
    "User": keep(text(128)),
    "AttachStdin": keep(flag),
    "AttachStdout": keep(flag),
    "AttachStderr": keep(flag),
    "ExposedPorts": keep(mapping(port, record({}))),
    "Tty": keep(flag),
    "OpenStdin": keep(flag),
    "StdinOnce": keep(flag),
    "Env": keep(each(text(131_072))),
    "Cmd": keep(words),
    "Healthcheck": keep(healthcheck),
    "ArgsEscaped": drop(),  # Windows only
    "Image": force(text(512)),  # becomes the id that the gate found among the lease's images
    "Volumes": force(mapping(inner_path, record({}))),
    "WorkingDir": keep(text(1024)),
    "Entrypoint": keep(words),
    "NetworkDisabled": keep(flag),
    "MacAddress": refuse("a container's MAC address is chosen by the provider"),
    "OnBuild": drop(),
    "Labels": force(labels),
    "StopSignal": keep(matching(r"[A-Z0-9+-]{1,20}", "must be a signal's name or number")),
    "StopTimeout": keep(number(0, 3600)),
    "Shell": keep(each(text(1024))),
}

_OWN = "only containers of the same lease can be joined: 'container:<name>'"
_join = matching(f"container:{REFERENCE}", _OWN)
_DEVICE = "a provider's devices are not rented"
_CPU_PIN = "which cores a container runs on is the provider's choice; use --cpus"
_IO = "block I/O cannot be weighted here"
_UNMASK = "the protected paths of /proc and /sys stay protected"
_HOST_NS = "belongs to the provider's machine"

ulimit_bounds = {
    "core": (0, 0),  # a core dump would be written by the provider's own handler
    "nofile": (0, 1_048_576),
    "nproc": (0, PIDS_MAX),
    "memlock": (0, 64 * MIB),
    "stack": (0, GIB),
    "fsize": (0, MEMORY_MAX),
    "data": (0, MEMORY_MAX),
    "cpu": (0, 1 << 31),
    "sigpending": (0, 65_536),
}


def ulimit(value: Any) -> str:
    if not isinstance(value, dict) or value.get("Name") not in ulimit_bounds:
        return f"only these can be set: {', '.join(ulimit_bounds)}"
    low, high = ulimit_bounds[value["Name"]]
    return record({"Name": anything, "Soft": number(low, high), "Hard": number(low, high)})(value)


_TMPFS_SIZE = r"size=\d{1,12}[kKmMgG]?"
_TMPFS_OPTION = (
    rf"(rw|ro|exec|noexec|nosuid|nodev|{_TMPFS_SIZE}|mode=[0-7]{{1,4}}|uid=\d{{1,10}}|gid=\d{{1,10}})?"
)
tmpfs_options = matching(
    rf"{_TMPFS_OPTION}(,{_TMPFS_OPTION}){{0,12}}",
    "must be of size, mode, uid, gid, ro, rw, exec, noexec, nosuid, nodev",
)
tmpfs_mount = record({"SizeBytes": number(0, MEMORY_MAX), "Mode": number(0, 0o1777)})


def mount(value: Any) -> str:
    if reason := volumes.refusal(volumes.parse_mount)(value):
        return str(reason)
    options = value.get("TmpfsOptions")
    return "" if options is None else tmpfs_mount(options)


extra_host = matching(
    r"[a-zA-Z0-9_.-]{1,253}[:=]\[?[0-9a-fA-F.:]{2,45}\]?",
    "must be name:address (host-gateway is the provider's)",
)
sysctls = {
    "net.core.somaxconn": (1, 65_535),
    "net.ipv4.ip_unprivileged_port_start": (0, 65_535),
    "net.ipv4.tcp_keepalive_time": (1, 32_767),
    "net.ipv4.tcp_keepalive_intvl": (1, 32_767),
    "net.ipv4.tcp_keepalive_probes": (1, 127),
}
"""All of the container's own network namespace, none with a cost for the provider."""


def sysctl(value: Any) -> str:
    if not isinstance(value, dict) or not value.keys() <= sysctls.keys():
        return f"only these can be set: {', '.join(sysctls)}"
    for key, setting in value.items():
        low, high = sysctls[key]
        if not isinstance(setting, str) or not setting.isascii() or not setting.isdigit() or len(setting) > 6:
            return f"{key} must be a number in a string"
        if not low <= int(setting) <= high:
            return f"{key} must be between {low} and {high}"
    return ""


RESOURCES: dict[str, Field] = {
    "CpuShares": keep(number(2, 262_144)),  # relative to the lease's other containers only
    "Memory": force(number(6 * MIB, MEMORY_MAX, "must be at least 6 MiB")),
    "MemoryReservation": keep(number(0, MEMORY_MAX)),
    "MemorySwap": force(number(0, MEMORY_MAX, "no swap is offered: leave it out, or equal to the memory")),
    "NanoCpus": force(number(10_000_000, 10**15)),
    "CpuPeriod": force(number(1_000, 1_000_000)),
    "CpuQuota": force(number(1_000, 10**12)),
    "PidsLimit": force(number(-1, PIDS_MAX, f"at most {PIDS_MAX} processes")),
    "RestartPolicy": keep(
        record(
            {
                "Name": one_of(
                    ("no", "always", "unless-stopped", "on-failure"),
                    "must be no, always, unless-stopped or on-failure",
                ),
                "MaximumRetryCount": number(0, 1_000_000),
            }
        )
    ),
    "MemorySwappiness": drop(one_of((-1,), "no swap is offered")),
    "OomKillDisable": refuse("a container over its memory must be stoppable"),
    "KernelMemory": refuse("use --memory, which counts it"),
    "KernelMemoryTCP": refuse("use --memory, which counts it"),
    "CpuRealtimePeriod": refuse("real-time scheduling is not offered"),
    "CpuRealtimeRuntime": refuse("real-time scheduling is not offered"),
    "CpusetCpus": refuse(_CPU_PIN),
    "CpusetMems": refuse(_CPU_PIN),
    "BlkioWeight": refuse(_IO),
    "BlkioWeightDevice": refuse(_IO),
    "BlkioDeviceReadBps": refuse(_IO),
    "BlkioDeviceWriteBps": refuse(_IO),
    "BlkioDeviceReadIOps": refuse(_IO),
    "BlkioDeviceWriteIOps": refuse(_IO),
    "CpuCount": refuse("is for Windows"),
    "CpuPercent": refuse("is for Windows"),
    "IOMaximumIOps": refuse("is for Windows"),
    "IOMaximumBandwidth": refuse("is for Windows"),
    "CgroupParent": refuse("the lease's own cgroup is the meter"),
    "Devices": refuse(_DEVICE),
    "DeviceCgroupRules": refuse(_DEVICE),
    "DeviceRequests": refuse(_DEVICE + " (no GPUs yet)"),
    "Ulimits": keep(each(ulimit)),
    "Init": keep(flag),
}
"""What ``docker update`` sends too."""

HOST_CONFIG: dict[str, Field] = {
    **RESOURCES,
    "Binds": force(each(volumes.refusal(volumes.parse_bind))),
    "Mounts": force(each(mount)),
    "ContainerIDFile": drop(),
    "LogConfig": force(
        record(
            {
                "Type": one_of(("json-file", "none"), "only json-file and none are offered"),
                "Config": record({"max-size": text(20), "max-file": text(5)}),
            }
        )
    ),
    "NetworkMode": force(
        either(
            _join,
            matching(
                rf"(?!host$){REFERENCE}", "must be none, bridge, or a network or container of the same lease"
            ),
        )
    ),
    "PortBindings": drop(),  # a published port listens on the tenant's own machine
    "PublishAllPorts": drop(flag),
    "AutoRemove": keep(flag),
    "VolumeDriver": drop(one_of(("local",), "only the local volume driver is offered")),
    "VolumesFrom": force(each(matching(f"{REFERENCE}(:ro|:rw)?", "must be containers of the same lease"))),
    "ConsoleSize": drop(each(number(0, 10_000))),  # the client resizes after the start
    "Annotations": refuse("are for the provider's runtime"),
    "CapAdd": force(capabilities.added),
    "CapDrop": force(each(matching(r"[A-Za-z_]{1,40}", "must be a list of capability names"))),
    "CgroupnsMode": force(one_of(("private",), "only private is offered")),
    "Dns": keep(each(ip_address)),
    "DnsOptions": keep(each(matching(r"[a-z0-9:-]{1,60}", "must be resolver options"))),
    "DnsSearch": keep(each(matching(r"[a-zA-Z0-9_.-]{1,253}", "must be domain names"))),
    "ExtraHosts": keep(each(extra_host)),
    "GroupAdd": keep(each(matching(r"[a-zA-Z0-9_-]{1,64}", "must be group names or numbers"))),
    "IpcMode": force(either(one_of(("private", "shareable", "none"), _OWN), _join)),
    "Cgroup": refuse("another container's cgroup cannot be joined"),
    "Links": refuse("in a network that you make containers find each other by name; there are no links"),
    "OomScoreAdj": keep(number(0, 1000, "must be between 0 and 1000")),
    "PidMode": force(_join),
    "Privileged": refuse("no container of a stranger gets the provider's machine"),
    "ReadonlyRootfs": keep(flag),
    "SecurityOpt": force(
        each(
            one_of(
                ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"),
                "only no-new-privileges, which is always on",
            )
        )
    ),
    "StorageOpt": refuse("the disk's size is the lease's"),
    "Tmpfs": force(mapping(inner_path, either(text(0), tmpfs_options))),
    "UTSMode": refuse(_HOST_NS),
    "UsernsMode": refuse(_HOST_NS),
    "ShmSize": force(number(0, SHM_MAX)),
    "Sysctls": keep(sysctl),
    "Runtime": refuse("the runtime is chosen by the lease's isolation level"),
    "Isolation": drop(one_of(("default",), "is for Windows")),
    "MaskedPaths": refuse(_UNMASK),
    "ReadonlyPaths": refuse(_UNMASK),
}

EMPTY_IS_A_WISH = frozenset({"MaskedPaths", "ReadonlyPaths"})
"""``[]`` differs from null here: it takes all protection away."""

ENDPOINT: dict[str, Field] = {
    "Aliases": keep(each(matching(r"[a-zA-Z0-9_.-]{1,253}", "must be host names"))),
    "IPAMConfig": drop(
        either(record({}), nothing("addresses are given by the provider; use the container's name"))
    ),
    "Links": refuse("in a network that you make containers find each other by name; there are no links"),
    "MacAddress": refuse("a container's MAC address is chosen by the provider"),
    "DriverOpts": refuse("networks have no options here"),
    "GwPriority": drop(number(-(1 << 31), 1 << 31)),
    "NetworkID": drop(),  # these eight come back from clients that send what they inspected
    "EndpointID": drop(),
    "Gateway": drop(),
    "IPAddress": drop(),
    "IPPrefixLen": drop(),
    "IPv6Gateway": drop(),
    "GlobalIPv6Address": drop(),
    "GlobalIPv6PrefixLen": drop(),
    "DNSNames": drop(),
}
