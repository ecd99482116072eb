"""The engine's answers in the tenant's words: own names without prefix, nothing of the provider or of others.

Objects are rebuilt from the keys named here, so a newer engine cannot add a leak. ``null`` and missing keys are
kept as the engine sent them: clients (compose above all) notice a changed shape.
"""

from __future__ import annotations

from typing import Any

from dockage.domain.identity import LeaseId
from dockage.protocol.images import of_lease_tag

from .create import Place
from .fields import CONFIG, HOST_CONFIG
from .names import DEFAULT_NETWORK, INTERNAL_LABELS, scrub, tenant_name, tenant_network

Json = dict[str, Any]

LISTED = frozenset(
    "Id Names Image ImageID Command Created Ports SizeRw SizeRootFs Labels State Status HostConfig "
    "NetworkSettings Mounts".split()
)
INSPECTED = frozenset(
    "Id Created Path Args State Image Name RestartCount Driver Platform HostConfig SizeRw SizeRootFs "
    "Mounts Config NetworkSettings ExecIDs".split()
)
STATE = frozenset(
    "Status Running Paused Restarting OOMKilled Dead ExitCode Error StartedAt FinishedAt Health".split()
)
HIDDEN = "LogPath HostnamePath HostsPath ResolvConfPath MountLabel ProcessLabel AppArmorProfile".split()
"""Paths and names of the provider's machine: there, as clients expect, but empty."""
ENDPOINT = frozenset(
    "IPAMConfig Links Aliases NetworkID EndpointID Gateway IPAddress IPPrefixLen IPv6Gateway GlobalIPv6Address "
    "GlobalIPv6PrefixLen MacAddress DNSNames DriverOpts".split()
)
SETTINGS = frozenset(
    "Ports EndpointID Gateway IPAddress IPPrefixLen IPv6Gateway GlobalIPv6Address GlobalIPv6PrefixLen "
    "MacAddress HairpinMode LinkLocalIPv6Address LinkLocalIPv6PrefixLen SecondaryIPAddresses "
    "SecondaryIPv6Addresses".split()
)
NETWORK = frozenset(
    "Name Id Created Scope Driver EnableIPv6 EnableIPv4 IPAM Internal Attachable Ingress ConfigOnly "
    "Containers Labels".split()
)
VOLUME = frozenset("CreatedAt Driver Labels Name Scope".split())
IMAGE = frozenset(
    "Id Parent Comment Created Container DockerVersion Author Config ContainerConfig Architecture Variant Os "
    "Size VirtualSize SharedSize Containers RootFS Labels ParentId".split()
)
EXEC = frozenset(
    "ID Running ExitCode ProcessConfig OpenStdin OpenStderr OpenStdout CanRemove ContainerID DetachKeys".split()
)


def _picked(item: Json, keys: frozenset[str]) -> Json:
    return {key: value for key, value in item.items() if key in keys}


def labels(found: Json | None) -> Json | None:
    if found is None:
        return None
    return {key: value for key, value in found.items() if key not in INTERNAL_LABELS}


# -- containers ----------------------------------------------------------------------------------------
def listed(place: Place, item: Json) -> Json:
    """One entry of ``GET /containers/json``."""
    shown = _picked(item, LISTED)
    networks = (item.get("NetworkSettings") or {}).get("Networks") or {}
    names = [name for name in item.get("Names") or [] if name.count("/") == 1]  # others are links
    mode = (item.get("HostConfig") or {}).get("NetworkMode", "")
    return shown | {
        "Names": ["/" + tenant_name(place.lease, name) for name in names],
        "Image": of_lease_tag(place.lease, str(item.get("Image"))),
        "ImageID": of_lease_tag(place.lease, str(item.get("Image"))),
        "Labels": labels(item.get("Labels")),
        "HostConfig": {"NetworkMode": tenant_network(place.lease, place.network, mode)},
        "NetworkSettings": {"Networks": endpoints(place, networks)},
        "Mounts": mounts(place, item.get("Mounts")),
    }


def inspected(place: Place, item: Json) -> Json:
    """``GET /containers/{id}/json``."""
    config = _picked(item.get("Config") or {}, frozenset(CONFIG))
    image = of_lease_tag(place.lease, str(config.get("Image")))
    return _picked(item, INSPECTED) | {
        "Image": image,
        "Name": "/" + tenant_name(place.lease, item.get("Name", "")),
        "State": _state(place, item.get("State") or {}),
        "Config": config | {"Image": image, "Labels": labels(config.get("Labels"))},
        "HostConfig": _host_config(place, item),
        "Mounts": mounts(place, item.get("Mounts")),
        "NetworkSettings": _settings(place, item.get("NetworkSettings") or {}),
        **dict.fromkeys(HIDDEN, ""),
        "GraphDriver": {"Name": item.get("Driver", ""), "Data": None},
    }


def _state(place: Place, found: Json) -> Json:
    said = {"Error": scrub(place.lease, str(found["Error"]))} if found.get("Error") else {}
    return _picked(found, STATE) | {"Pid": 0} | said


def _host_config(place: Place, item: Json) -> Json:
    found = _picked(item.get("HostConfig") or {}, frozenset(HOST_CONFIG))
    tmpfs = [mount for mount in found.pop("Mounts", None) or [] if mount.get("Type") == "tmpfs"]
    return (found | {"Mounts": tmpfs} if tmpfs else found) | {
        "Binds": _binds(place, item.get("Mounts")),
        "NetworkMode": tenant_network(place.lease, place.network, str(found.get("NetworkMode", ""))),
        "CgroupParent": "",
    }


def mounts(place: Place, found: list[Json] | None) -> list[Json]:
    """The volumes, as Docker shows them: their path is nobody's business and nobody's use."""
    return [
        mount
        | (
            {"Name": name, "Source": _mountpoint(name)}
            if (name := tenant_name(place.lease, mount.get("Name", "")))
            else {}
        )
        for mount in found or []
        if mount.get("Type") in ("volume", "tmpfs")
    ]


def _binds(place: Place, found: list[Json] | None) -> list[str] | None:
    binds = [
        f"{mount['Name']}:{mount['Destination']}:{'rw' if mount.get('RW') else 'ro'}"
        for mount in mounts(place, found)
        if mount.get("Name")
    ]
    return binds or None


def _mountpoint(name: str) -> str:
    return f"/var/lib/docker/volumes/{name}/_data"


def _settings(place: Place, found: Json) -> Json:
    empty = {"Bridge": "", "SandboxID": "", "SandboxKey": ""}
    networks = endpoints(place, found.get("Networks") or {})
    default = networks.get(DEFAULT_NETWORK) or {}  # of this one the address is shown twice
    twice = {name: default[name] for name in found if name in default}
    return empty | _picked(found, SETTINGS) | twice | {"Networks": networks}


def endpoints(place: Place, networks: Json) -> Json:
    return {
        tenant_network(place.lease, place.network, name): endpoint(place, found or {})
        for name, found in networks.items()
    }


def endpoint(place: Place, found: Json) -> Json:
    shown = _picked(found, ENDPOINT)
    for key in ("Aliases", "DNSNames"):
        if shown.get(key):
            shown[key] = list(dict.fromkeys(tenant_name(place.lease, name) for name in shown[key]))
    return shown


def executed(item: Json) -> Json:
    """``GET /exec/{id}/json``."""
    return _picked(item, EXEC) | {"Pid": 0}


# -- events --------------------------------------------------------------------------------------------
def event(place: Place, item: Json) -> Json | None:
    """One line of ``/events``; None if it is not of this lease, whatever the engine's filter said."""
    actor = item.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    if item.get("Type") != "container" or attributes.get("dockage.lease") != place.lease.hex():
        return None
    shown = {key: value for key, value in attributes.items() if key not in INTERNAL_LABELS}
    if "name" in shown:
        shown["name"] = tenant_name(place.lease, str(shown["name"]))
    if "image" in shown:
        shown["image"] = of_lease_tag(place.lease, str(shown["image"]))
    return item | {"Actor": {"ID": actor.get("ID"), "Attributes": shown}}


# -- networks, volumes, images -------------------------------------------------------------------------
def network(place: Place, item: Json) -> Json:
    members = {
        id: member | {"Name": tenant_name(place.lease, member.get("Name", ""))}
        for id, member in (item.get("Containers") or {}).items()
    }
    return _picked(item, NETWORK) | {
        "Name": tenant_network(place.lease, place.network, item["Name"]),
        "Labels": labels(item.get("Labels")) or {},
        "Containers": members,
        "Options": {},
        "ConfigFrom": {"Network": ""},
    }


def volume(place: Place, item: Json) -> Json:
    name = tenant_name(place.lease, item["Name"])
    return _picked(item, VOLUME) | {
        "Name": name,
        "Labels": labels(item.get("Labels")),
        "Mountpoint": _mountpoint(name),
        "Options": None,
    }


def image(lease: LeaseId, item: Json) -> Json:
    """Listed or inspected. Its tags in the provider's engine are ours, not the tenant's."""
    return _picked(item, IMAGE) | {"Id": image_id(lease, item), "RepoTags": [], "RepoDigests": []}


def image_id(lease: LeaseId, item: Json) -> str:
    """As the tenant knows it (sha256 of the config): an engine with the containerd store has another one."""
    tags = [of_lease_tag(lease, str(tag)) for tag in item.get("RepoTags") or []]
    return next((tag for tag in tags if tag.startswith("sha256:")), str(item.get("Id")))
