"""Whole answers that the front makes up itself: version, info, the predefined networks, networks and volumes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from . import front_create as create
from .front_state import Network, Volume

API_VERSION = "1.44"
"""Engine 25's. Engine 29's clients refuse less; compose needs no more."""
MIN_API_VERSION = "1.24"
ENGINE_LIKE = "25.0.0"
"""The engine whose API this is; tools compare it as a semantic version."""

Doc = dict[str, Any]


def parse_version(text: str) -> tuple[int, ...]:
    """``"1.44"`` as numbers; () for anything else."""
    parts = text.split(".")
    good = len(parts) == 2 and all(part.isascii() and part.isdigit() and len(part) < 4 for part in parts)
    return tuple(int(part) for part in parts) if good else ()


def version(own: str, architecture: str, kernel: str) -> Doc:
    facts = {
        "ApiVersion": API_VERSION,
        "MinAPIVersion": MIN_API_VERSION,
        "Os": "linux",
        "Arch": architecture,
        "KernelVersion": kernel,
        "GitCommit": "dockage",
        "GoVersion": "none",
        "BuildTime": "",
        "Experimental": "false",
    }
    return {
        "Platform": {"Name": f"dockage {own}"},
        "Components": [{"Name": "Engine", "Version": f"{ENGINE_LIKE}+dockage.{own}", "Details": facts}],
        "Version": f"{ENGINE_LIKE}+dockage.{own}",
        **{name: value for name, value in facts.items() if name != "Experimental"},
    }


LOCAL_INFO = tuple(
    "Images Driver DriverStatus RegistryConfig IndexServerAddress Plugins HttpProxy HttpsProxy NoProxy".split()
)
"""Taken from the local engine where there is one: buildx reads the image store's kind from DriverStatus."""


def info(own: str, machine: Doc, local: Mapping[str, Any], counts: Doc, now: str) -> Doc:
    """*machine*: NCPU, MemTotal, Architecture, KernelVersion; *counts*: Containers, ContainersRunning, ...;
    *now*: RFC 3339."""
    nobody_knows = {"ID": "", "Expected": ""}
    return {
        "ID": "dockage",
        "Name": "dockage",
        "ServerVersion": f"{ENGINE_LIKE}+dockage.{own}",
        "OperatingSystem": f"dockage {own}: containers on leases in the market",
        "OSType": "linux",
        "OSVersion": "",
        **machine,
        **counts,
        "Images": 0,
        "Driver": "dockage",
        "DriverStatus": [],
        "SystemTime": now,
        "Plugins": {"Volume": ["local"], "Network": ["bridge"], "Authorization": None, "Log": ["json-file"]},
        "RegistryConfig": {"InsecureRegistryCIDRs": [], "IndexConfigs": {}, "Mirrors": []},
        "IndexServerAddress": "",
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        **{name: local[name] for name in LOCAL_INFO if local.get(name) is not None},
        "MemoryLimit": True,
        "SwapLimit": False,
        "KernelMemory": False,
        "KernelMemoryTCP": False,
        "CPUShares": True,
        "CPUSet": False,
        "CpuCfsPeriod": True,
        "CpuCfsQuota": True,
        "PidsLimit": True,
        "IPv4Forwarding": True,
        "BridgeNfIptables": True,
        "BridgeNfIp6tables": True,
        "OomKillDisable": False,
        "Debug": False,
        "NFd": 0,
        "NGoroutines": 0,
        "NEventsListener": 0,
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2",
        "DockerRootDir": "",
        "DefaultRuntime": "runc",
        "Runtimes": {"runc": {"path": "runc"}},
        "Isolation": "",
        "InitBinary": "docker-init",
        "ContainerdCommit": nobody_knows,
        "RuncCommit": nobody_knows,
        "InitCommit": nobody_knows,
        "GenericResources": None,
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "SecurityOptions": ["name=seccomp,profile=builtin"],
        "LiveRestoreEnabled": True,
        "ExperimentalBuild": False,
        "Labels": [],
        "Warnings": None,
    }


def fixed_id(name: str) -> str:
    """The id of a predefined network: the same on every run."""
    return hashlib.sha256(b"dockage network " + name.encode()).hexdigest()


def predefined(created: str) -> list[Doc]:
    drivers = (("bridge", "bridge"), ("host", "host"), ("none", "null"))
    return [
        _network(fixed_id(name), name, driver, created, {"Options": {}, "Labels": {}})
        for name, driver in drivers
    ]


def network(record: Network) -> Doc:
    """As ``GET /networks`` lists it. Labels are exactly as given: they are compose's only state."""
    body = msgspec.json.decode(record.body, type=dict[str, Any])
    return _network(record.id, record.name, "bridge", record.created, body)


def _network(id_: str, name: str, driver: str, created: str, body: Doc) -> Doc:
    ipam = body.get("IPAM") or {}
    return {
        "Name": name,
        "Id": id_,
        "Created": created,
        "Scope": "local",
        "Driver": driver,
        "EnableIPv6": bool(body.get("EnableIPv6")),
        "IPAM": {
            "Driver": ipam.get("Driver") or "default",
            "Options": ipam.get("Options"),
            "Config": ipam.get("Config") or [],
        },
        "Internal": bool(body.get("Internal")),
        "Attachable": bool(body.get("Attachable")),
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": body.get("Options") or {},
        "Labels": create.labels(body),
    }


def volume(record: Volume) -> Doc:
    body = msgspec.json.decode(record.body, type=dict[str, Any])
    place = f"dockage:{record.lease.hex()[:12]}/{record.name}" if record.lease else ""
    return {
        "Name": record.name,
        "Driver": "local",
        "Mountpoint": place,
        "CreatedAt": record.created,
        "Scope": "local",
        "Labels": create.labels(body),
        "Options": body.get("DriverOpts") or None,
    }


def event(kind: str, action: str, id_: str, attributes: Mapping[str, str], now_ns: int) -> Doc:
    """One line of ``GET /events`` about a thing that only the front knows."""
    return {
        "status": action,
        "id": id_,
        "Type": kind,
        "Action": action,
        "Actor": {"ID": id_, "Attributes": dict(attributes)},
        "scope": "local",
        "time": now_ns // 1_000_000_000,
        "timeNano": now_ns,
    }
