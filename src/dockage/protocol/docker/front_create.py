"""What a container's create body asks of the market: resources, ports, networks, volumes, a place.

Counterpart: ``adapters/front/placing.py``. The rule: what is taken out of the body here (ports, later networks) is
done by the front itself; everything else reaches the provider's filter unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from dockage.domain.errors import UsageError
from dockage.domain.resources import DEFAULT_CONTAINER, Resources

from .front_errors import ApiError
from .front_state import Publish
from .update import CHANGEABLE
from .values import is_default
from .volumes import volume_uses

PROJECT = "com.docker.compose.project"
WISH = "dockage."
RESERVED_CPUS = WISH + "reserved-cpus"
"""Docker has no word for it: compose keeps ``reservations.cpus`` to itself."""
CORES = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?")
SHOWN_LABELS = frozenset({"dockage.lease", "dockage.price-msat-hour", "dockage.reason"})
"""``dockage.provider`` is shown too, but may also be a wish."""
NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")
PORTS_MAX = 64
"""Published ports of one container: each is a listening socket on the tenant's machine."""
PREDEFINED = frozenset({"", "default", "bridge", "none", "host"})

Body = dict[str, Any]


def section(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    """``body[name]`` if it is an object; clients send null for empty ones. Raises ApiError(400)."""
    value = body.get(name) or {}
    if not isinstance(value, dict):
        raise ApiError(400, f"invalid {name}: an object is expected")
    return value


def labels(body: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in section(body, "Labels").items()}


def without_shown(body: Body) -> Body:
    """*body* without the labels that only we set on what we show: some clients copy what they inspected."""
    kept = {name: value for name, value in labels(body).items() if name not in SHOWN_LABELS}
    return {**body, "Labels": kept} if "Labels" in body else body


def check_name(name: str) -> str:
    """*name* without its optional slash. Raises ApiError(400) in the engine's words."""
    if not NAME.fullmatch(name) or len(name) > 255:
        raise ApiError(
            400,
            f"Invalid container name ({name[:255]}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
        )
    return name.removeprefix("/")


def need(body: Mapping[str, Any]) -> Resources:
    """What the lease must have room for: the stated limits, the default for each that is not stated; and how much of
    them is reserved. Raises UsageError("label.number")."""
    host = section(body, "HostConfig")
    period = _whole(host.get("CpuPeriod")) or 100_000
    milli = _whole(host.get("NanoCpus")) // 1_000_000 or _whole(host.get("CpuQuota")) * 1000 // period
    limits = Resources(
        cpu_milli=milli if milli > 0 else DEFAULT_CONTAINER.cpu_milli,
        memory_bytes=max(0, _whole(host.get("Memory"))) or DEFAULT_CONTAINER.memory_bytes,
        disk_bytes=DEFAULT_CONTAINER.disk_bytes,
    )
    return reserving(limits, labels(body).get(RESERVED_CPUS, ""), _whole(host.get("MemoryReservation")))


def reserving(limits: Resources, cpus: str, memory: int) -> Resources:
    """*limits*, with so many *cpus* (the label's text) and bytes of *memory* reserved; all of it where nothing is
    said. Raises UsageError("label.number")."""
    return limits.reserving(
        reserved_milli(cpus) if cpus else limits.cpu_milli, memory if memory > 0 else limits.memory_bytes
    )


def reserved_milli(text: str) -> int:
    """Of the label ``dockage.reserved-cpus``: cores, to the thousandth. Raises UsageError("label.number")."""
    if not CORES.fullmatch(text):
        raise UsageError(
            "label.number", f"{RESERVED_CPUS} takes a number of cores such as 0.25, not {text[:40]!r}"
        )
    whole, _, part = text.partition(".")
    return int(whole) * 1000 + int(part.ljust(3, "0"))


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def updated(body: Mapping[str, Any], change: Mapping[str, Any]) -> Body:
    """The create body as it would be after a ``docker update``."""
    kept = {name: value for name, value in change.items() if name in CHANGEABLE and not is_default(value)}
    return {**body, "HostConfig": {**section(body, "HostConfig"), **kept}}


def shortfall(wanted: Iterable[Resources], limits: Resources) -> Resources:
    """How much a lease of *limits* must grow so that all of *wanted* fit; nothing is given back."""
    return limits.covering(sum(wanted, Resources())) - limits


def wishes(body: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in labels(body).items() if name.startswith(WISH)}


def volumes(body: Mapping[str, Any]) -> dict[str, str]:
    """Where in the container each named volume is mounted: target to volume name. Raises Refused(400)."""
    return {use.target: use.name for use in volume_uses(dict(body)) if use.name}


def networks(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The user-defined networks it joins, the primary one first."""
    mode = str(section(body, "HostConfig").get("NetworkMode") or "")
    named = [mode] if mode not in PREDEFINED and not mode.startswith("container:") else []
    named += section(section(body, "NetworkingConfig"), "EndpointsConfig")
    return tuple(dict.fromkeys(name for name in named if name not in PREDEFINED))


def joined(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The networks that it is in while it runs; none for ``none`` and another container's."""
    mode = str(section(body, "HostConfig").get("NetworkMode") or "")
    return networks(body) or (("bridge",) if mode in ("", "default", "bridge") else ())


def peers(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The containers that it must be placed with: ``--network container:X`` and ``--volumes-from``."""
    host = section(body, "HostConfig")
    modes = [str(host.get(name) or "") for name in ("NetworkMode", "IpcMode", "PidMode")]
    named = [mode.partition(":")[2] for mode in modes if mode.startswith("container:")]
    named += [str(one).partition(":")[0] for one in host.get("VolumesFrom") or ()]
    return tuple(dict.fromkeys(named))


def published(body: Mapping[str, Any], image_ports: Iterable[str] = ()) -> tuple[Publish, ...]:
    """The ``-p`` and ``-P`` of the body. Raises ApiError(400) for what cannot be tunnelled."""
    host = section(body, "HostConfig")
    found = [
        _publish(port, binding)
        for port, bindings in section(host, "PortBindings").items()
        for binding in _bindings(bindings)
    ]
    if host.get("PublishAllPorts"):
        taken = {one.end for one in found}
        exposed = [_publish(port, {}) for port in (*section(body, "ExposedPorts"), *image_ports)]
        found += [one for one in dict.fromkeys(exposed) if one.end not in taken]
    if len(found) > PORTS_MAX:
        raise ApiError(400, f"{len(found)} published ports; at most {PORTS_MAX} are tunnelled per container")
    return tuple(found)


def _bindings(value: object) -> list[Mapping[str, Any]]:
    """null and [] stand for any free port of the default address."""
    found = [{}] if not value else value
    if not isinstance(found, list) or not all(isinstance(one or {}, dict) for one in found):
        raise ApiError(400, "invalid PortBindings: a list of objects is expected for each port")
    return [one or {} for one in found]


def _publish(port: str, binding: Mapping[str, Any]) -> Publish:
    first, _, last = str(binding.get("HostPort") or "0").partition("-")
    low, high = _number(first, 0), _number(last or first, 0)
    if low > high:
        raise ApiError(400, f"invalid range of host ports: {first}-{last}")
    number, _, protocol = port.partition("/")
    if protocol not in ("", "tcp", "udp"):
        raise ApiError(400, f"port {port[:40]}: only TCP and UDP ports are tunnelled to your machine")
    return Publish(_number(number, 1), str(binding.get("HostIp") or ""), low, high, protocol or "tcp")


def _number(text: str, least: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text[:6]) <= 65535:
        raise ApiError(400, f"invalid port: {text[:16]!r}")
    return int(text)


def forwarded(
    body: Mapping[str, Any], image_id: str, remote_ids: Mapping[str, str], networks: Mapping[str, str]
) -> Body:
    """The create body for the lease's engine: the image by id, other containers by their ids there, networks by name
    (their ids here are the front's own), and no published ports, which are the front's too."""
    host = {**section(body, "HostConfig")}
    host.pop("PortBindings", None)
    host.pop("PublishAllPorts", None)
    if network := networks.get(str(host.get("NetworkMode"))):
        host["NetworkMode"] = network
    for name in ("NetworkMode", "IpcMode", "PidMode"):
        kind, colon, ref = str(host.get(name) or "").partition(":")
        if colon and kind == "container":
            host[name] = f"container:{remote_ids.get(ref, ref)}"
    if host.get("VolumesFrom"):
        host["VolumesFrom"] = [_renamed(str(one), remote_ids) for one in host["VolumesFrom"]]
    networking = section(body, "NetworkingConfig")
    ends = {networks.get(ref, ref): end for ref, end in section(networking, "EndpointsConfig").items()}
    joined = {"NetworkingConfig": {**networking, "EndpointsConfig": ends}} if ends else {}
    return {**body, "Image": image_id, "HostConfig": host, **joined}


def _renamed(text: str, remote_ids: Mapping[str, str]) -> str:
    ref, colon, rest = text.partition(":")
    return remote_ids.get(ref, ref) + colon + rest
