"""A container's create body: what in it needs to be resolved, and what the engine gets instead.

Both functions take only bodies in which ``refusals`` found nothing. ``creation`` never copies what the tables
in fields.py do not name: whatever a body holds, the engine sees only checked fields and the provider's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, MIB

from . import fields
from .capabilities import effective
from .fields import CONFIG, HOST_CONFIG, Fate, Field
from .names import ANONYMOUS_LABEL, DEFAULT_NETWORK, LEASE_LABEL, NETWORK_LABEL, engine_name
from .refusal import Refused
from .volumes import VolumeUse, volume_uses

LOGS = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}
NO_LOGS = {"Type": "none", "Config": {}}


class Place(NamedTuple):
    """What the provider gives every container of one lease."""

    lease: LeaseId
    cgroup_parent: str
    network: str
    """The engine's name of the lease's default network."""
    limits: Resources | None = None
    guard: str = ""
    """A host folder without which no container of the lease may start; "" for none."""


class Wants(NamedTuple):
    """The references in a create body that only the engine can resolve."""

    image: str
    volumes: tuple[VolumeUse, ...]
    containers: tuple[str, ...]
    networks: tuple[str, ...]
    tmpfs: tuple[str, ...]
    """Where it has memory instead of a volume."""


class Resolved(NamedTuple):
    image: str
    volumes: tuple[VolumeUse, ...]
    """All of them named now (anonymous ones too), including those that the image declares."""
    anonymous: tuple[str, ...]
    containers: Mapping[str, str]
    """The tenant's reference -> full id, each of this lease."""
    networks: Mapping[str, str]
    """The tenant's reference -> the engine's name, each of this lease; the default one's id."""


class Creation(NamedTuple):
    body: dict[str, Any]
    later: tuple[tuple[str, dict[str, Any]], ...]
    """Networks to connect before the answer goes out (engine name, endpoint): engines before API 1.44 take
    only one at creation, so the others always come after."""


# -- what it needs -----------------------------------------------------------------------------------
def wants(body: dict[str, Any]) -> Wants:
    """Only for a body without refusals."""
    host = body.get("HostConfig") or {}
    joined = (host.get(name) or "" for name in ("NetworkMode", "IpcMode", "PidMode"))
    containers = [mode.removeprefix("container:") for mode in joined if mode.startswith("container:")]
    containers += [each.partition(":")[0] for each in host.get("VolumesFrom") or []]
    image, networks = str(body.get("Image") or ""), tuple(_networks(body))
    return Wants(image, volume_uses(body), tuple(containers), networks, _tmpfs_targets(host))


def _tmpfs_targets(host: dict[str, Any]) -> tuple[str, ...]:
    mounts = [mount for mount in host.get("Mounts") or [] if mount["Type"] == "tmpfs"]
    return (*(host.get("Tmpfs") or {}), *(mount["Target"] for mount in mounts))


def _networks(body: dict[str, Any]) -> list[str]:
    mode = (body.get("HostConfig") or {}).get("NetworkMode") or "default"
    endpoints = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    first = [] if mode == "none" or mode.startswith("container:") else [mode]
    if not first and endpoints:
        raise Refused(400, f"a container with the network mode {mode[:80]} cannot have other networks")
    names = [DEFAULT_NETWORK if name == "default" else name for name in [*first, *endpoints]]
    return list(dict.fromkeys(names))


# -- what the engine gets ----------------------------------------------------------------------------
def creation(body: dict[str, Any], name: str, place: Place, resolved: Resolved) -> Creation:
    """Only for a body without refusals. *name* is the tenant's. Raises Refused(400) beyond the lease's limits."""
    host = body.get("HostConfig") or {}
    endpoints = _endpoints(body, name, resolved)
    first, later = endpoints[:1], endpoints[1:]
    result = _kept(body, CONFIG)
    result |= {
        "Image": resolved.image,
        "Labels": _labels(body.get("Labels") or {}, place.lease, resolved.anonymous),
        "HostConfig": _host(host, place, resolved, first[0][0] if first else ""),
        "NetworkingConfig": {"EndpointsConfig": dict(first)},
    }
    return Creation(result, tuple(later))


def _kept(body: dict[str, Any], table: Mapping[str, Field]) -> dict[str, Any]:
    return {
        name: value
        for name, value in body.items()
        if (known := table.get(name))
        and known.fate is Fate.KEEP
        and value is not None
        and not known.check(value)
    }


def _labels(tenants: dict[str, str], lease: LeaseId, anonymous: tuple[str, ...]) -> dict[str, str]:
    # all internal ones are set, since an image's own labels show through where the container has none
    ours = {LEASE_LABEL: lease.hex(), ANONYMOUS_LABEL: ",".join(anonymous), NETWORK_LABEL: ""}
    return tenants | ours


def _host(host: dict[str, Any], place: Place, resolved: Resolved, network: str) -> dict[str, Any]:
    memory = _memory(host, place.limits)
    return (
        _kept(host, HOST_CONFIG)
        | limited(host, place.limits)
        | {
            "CgroupParent": place.cgroup_parent,
            "CgroupnsMode": "private",
            "NetworkMode": network or _joined(host.get("NetworkMode"), resolved, "none"),
            "IpcMode": _joined(host.get("IpcMode"), resolved, "private"),
            "PidMode": _joined(host.get("PidMode"), resolved, ""),
            "CapDrop": ["ALL"],
            "CapAdd": effective(host.get("CapAdd") or [], host.get("CapDrop") or []),
            "SecurityOpt": ["no-new-privileges"],
            "LogConfig": NO_LOGS if (host.get("LogConfig") or {}).get("Type") == "none" else LOGS,
            "Binds": [],
            "VolumesFrom": [_volumes_from(each, resolved) for each in host.get("VolumesFrom") or []],
            "Mounts": [
                *_guard(place),
                *(_volume(place.lease, use) for use in resolved.volumes),
                *_tmpfs_mounts(host, memory),
            ],
            "Tmpfs": {path: _bounded_tmpfs(opts, memory) for path, opts in (host.get("Tmpfs") or {}).items()},
            "ShmSize": min(host.get("ShmSize") or 64 * MIB, memory),
            # Where memory that nobody reserved runs out, those who did not reserve theirs go first.
            "OomScoreAdj": 1000
            if place.limits and place.limits.memory_soft_bytes
            else host.get("OomScoreAdj") or 0,
            "PidsLimit": _pids(host.get("PidsLimit")),
            "PortBindings": {},
            "PublishAllPorts": False,
            "Privileged": False,
        }
    )


def _joined(mode: str | None, resolved: Resolved, default: str) -> str:
    if mode and mode.startswith("container:"):
        return f"container:{resolved.containers[mode.removeprefix('container:')]}"
    return mode or default


def _volumes_from(spec: str, resolved: Resolved) -> str:
    reference, colon, mode = spec.partition(":")
    return resolved.containers[reference] + colon + mode


def _pids(wish: int | None) -> int:
    return wish if wish and wish > 0 else fields.PIDS_DEFAULT


def limited(host: dict[str, Any], limits: Resources | None) -> dict[str, Any]:
    """Memory and CPU, never more than the lease has (the lease's own cgroup would hold it anyway; here the
    tenant is told). Without a wish a container may use all of it."""
    memory, cpus = _memory(host, limits), _nano_cpus(host)
    if limits is None:
        given = {"Memory": memory, "MemorySwap": memory} if host.get("Memory") else {}
        return given | ({"NanoCpus": cpus} if cpus else {})
    if memory > limits.memory_bytes:
        raise Refused(400, f"Memory of {memory} bytes is more than the lease's {limits.memory_bytes}")
    if cpus > limits.cpu_milli * 1_000_000:
        raise Refused(400, f"{cpus / 1e9:g} CPUs are more than the lease's {limits.cpu_milli / 1000:g}")
    return {"Memory": memory, "MemorySwap": memory, "NanoCpus": cpus or limits.cpu_milli * 1_000_000}


def _memory(host: dict[str, Any], limits: Resources | None) -> int:
    return int(host.get("Memory") or (limits.memory_bytes if limits else GIB))


def _nano_cpus(host: dict[str, Any]) -> int:
    """Both spellings: NanoCpus, or quota per period (the kernel's default period is 100 ms)."""
    if quota := host.get("CpuQuota") or 0:
        return int(quota * 1_000_000_000 // (host.get("CpuPeriod") or 100_000))
    return int(host.get("NanoCpus") or 0)


GUARDED = "/sys/firmware"
"""Every engine hides this path behind an empty tmpfs (moby oci/defaults.go, MaskedPaths): nothing is seen of it."""


def _guard(place: Place) -> list[dict[str, Any]]:
    """As a mount and not as a bind string, which the engine would make up if it were missing."""
    if not place.guard:
        return []
    return [{"Type": "bind", "Source": place.guard, "Target": GUARDED, "ReadOnly": True}]


def _volume(lease: LeaseId, use: VolumeUse) -> dict[str, Any]:
    return {
        "Type": "volume",
        "Source": engine_name(lease, use.name),
        "Target": use.target,
        "ReadOnly": use.read_only,
        "VolumeOptions": {"NoCopy": use.no_copy},
    }


def _tmpfs_mounts(host: dict[str, Any], memory: int) -> list[dict[str, Any]]:
    mounts = [mount for mount in host.get("Mounts") or [] if mount["Type"] == "tmpfs"]
    return [
        {
            "Type": "tmpfs",
            "Target": mount["Target"],
            "ReadOnly": mount.get("ReadOnly") is True,
            "TmpfsOptions": _tmpfs_options(mount.get("TmpfsOptions") or {}, memory),
        }
        for mount in mounts
    ]


def _tmpfs_options(wish: dict[str, Any], memory: int) -> dict[str, int]:
    size = min(wish.get("SizeBytes") or memory, memory)
    return {"SizeBytes": size} | ({"Mode": wish["Mode"]} if wish.get("Mode") else {})


def _bounded_tmpfs(options: str, memory: int) -> str:
    """Its pages count as the container's memory; without a size it could be half of the provider's."""
    given = [option for option in options.split(",") if option]
    sizes = [_bytes(option.removeprefix("size=")) for option in given if option.startswith("size=")]
    others = [option for option in given if not option.startswith("size=")]
    return ",".join([*others, f"size={min([*sizes, memory])}"])


def _bytes(size: str) -> int:
    units = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    unit = units.get(size[-1].lower(), 0)
    number = int(size[:-1]) * unit if unit else int(size)
    return number or 1 << 62  # 0 is the kernel's word for no limit


def _endpoints(body: dict[str, Any], name: str, resolved: Resolved) -> list[tuple[str, dict[str, Any]]]:
    """The engine's network name and endpoint of each wanted network, the network mode's first."""
    given = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    named = {DEFAULT_NETWORK if key == "default" else key: value or {} for key, value in given.items()}
    found: dict[str, dict[str, Any]] = {}
    for reference in _networks(body):
        own = "" if reference == DEFAULT_NETWORK else name
        found.setdefault(resolved.networks[reference], endpoint_of(named.get(reference) or {}, own))
    return list(found.items())


def endpoint_of(wish: dict[str, Any], name: str) -> dict[str, Any]:
    """The container's own *name* is an alias, for the engine knows it by another one; "" in the default network, where
    the engine knows no names and takes no alias."""
    return {"Aliases": list(dict.fromkeys([*(wish.get("Aliases") or []), *([name] if name else [])]))}
