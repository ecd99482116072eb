"""What the tenant sees: the lease engine's answers with the tenant's own words put back.

The engine knows an image id, no published ports and its own network ids; compose compares networks and labels with
what it asked for and recreates the container on any difference. So each view takes the engine's document and the
record, and returns a document in which everything the front took over is as the user asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from . import front_create as create
from .front_state import Container

Doc = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Around:
    """What a view needs to know beside the record."""

    labels: dict[str, str] = field(default_factory=dict)
    """``dockage.*`` facts of the lease."""
    bound: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    """Container port (``80/tcp``) to the (address, port) pairs that listen here now."""
    network_ids: Mapping[str, str] = field(default_factory=dict)
    """Network name to the id that the front gave it."""


def inspect(doc: Doc, container: Container, around: Around) -> Doc:
    """``GET /containers/{id}/json`` as the tenant should see it."""
    asked = body_of(container)
    config = {**_object(doc, "Config"), "Image": container.image}
    config["Labels"] = {**_object(config, "Labels"), **around.labels}
    network = {**_object(doc, "NetworkSettings")}
    network["Networks"] = _networks(network.get("Networks"), around)
    network["Ports"] = _ports_by_name(network.get("Ports"), container, around)
    return {
        **doc,
        "Id": container.id,
        "Name": f"/{container.name}",
        "Config": config,
        "HostConfig": _host_config(_object(doc, "HostConfig"), create.section(asked, "HostConfig")),
        "NetworkSettings": network,
        "Mounts": _mounts(doc.get("Mounts"), asked),
    }


def item(doc: Doc, container: Container, around: Around) -> Doc:
    """One entry of ``GET /containers/json``."""
    network = {**_object(doc, "NetworkSettings")}
    network["Networks"] = _networks(network.get("Networks"), around)
    mode = create.section(body_of(container), "HostConfig").get("NetworkMode") or "default"
    return {
        **doc,
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": container.image,
        "ImageID": str(doc.get("ImageID") or ""),
        "Created": container.created,
        "State": str(doc.get("State") or "created"),
        "Status": str(doc.get("Status") or ""),
        "Labels": {**_object(doc, "Labels"), **around.labels},
        "Ports": _port_list(doc.get("Ports"), around),
        "HostConfig": {**_object(doc, "HostConfig"), "NetworkMode": mode},
        "NetworkSettings": network,
        "Mounts": _mounts(doc.get("Mounts"), body_of(container)),
    }


def item_of_inspect(doc: Doc, created: int) -> Doc:
    """The list entry made of an inspect that :func:`inspect` already translated: for a container whose lease
    cannot be asked."""
    state, config = _object(doc, "State"), _object(doc, "Config")
    command = [str(doc.get("Path") or ""), *map(str, doc.get("Args") or ())]
    return {
        "Id": doc.get("Id"),
        "Names": [doc.get("Name")],
        "Image": config.get("Image"),
        "ImageID": doc.get("Image") or "",
        "Command": " ".join(command),
        "Created": created,
        "Ports": [],
        "Labels": config.get("Labels") or {},
        "State": state.get("Status") or "created",
        "Status": status_text(state),
        "HostConfig": {"NetworkMode": _object(doc, "HostConfig").get("NetworkMode") or "default"},
        "NetworkSettings": {"Networks": _object(_object(doc, "NetworkSettings"), "Networks")},
        "Mounts": doc.get("Mounts") or [],
    }


def status_text(state: Mapping[str, Any]) -> str:
    status = str(state.get("Status") or "created")
    reason = f" ({state['Error']})" if state.get("Error") else ""
    if status == "exited":
        return f"Exited ({state.get('ExitCode') or 0}){reason}"
    return f"{status.capitalize()}{reason}"


def after_the_end(doc: Doc, reason: str, finished: str) -> Doc:
    """The last inspect of a container whose lease has ended: it no longer runs anywhere. *finished* is RFC 3339."""
    before = _object(doc, "State")
    was_running = bool(before.get("Running"))
    state = {
        **before,
        "Status": "exited",
        "Running": False,
        "Paused": False,
        "Restarting": False,
        "Pid": 0,
        "Error": reason,
        "ExitCode": 137 if was_running else before.get("ExitCode") or 0,
        "FinishedAt": finished if was_running else before.get("FinishedAt") or finished,
    }
    state.pop("Health", None)
    return {**doc, "State": state}


def in_state(doc: Doc, status: str) -> Doc:
    """*doc* (an inspect, or nothing yet) of a container that went into another state."""
    state = {
        **_object(doc, "State"),
        "Status": status,
        "Running": status in ("running", "paused"),
        "Paused": status == "paused",
    }
    return {**doc, "State": state}


def out_of_reach(doc: Doc, reason: str) -> Doc:
    """The last inspect of a container whose provider does not answer now: nobody knows its state."""
    return {**doc, "State": {**_object(doc, "State"), "Error": f"last known state; {reason}"}}


def body_of(container: Container) -> Doc:
    body: Doc = msgspec.json.decode(container.body, type=dict[str, Any])
    return body


def _object(doc: Mapping[str, Any], name: str) -> Doc:
    value = doc.get(name)
    return value if isinstance(value, dict) else {}


ASKED = ("Binds", "Mounts", "PortBindings", "Links", "VolumesFrom")
"""HostConfig fields that are shown as asked: the front or the provider's filter writes others into the engine."""


def _host_config(doc: Doc, asked: Doc) -> Doc:
    shown = {name: asked.get(name) for name in ASKED if name in asked or name in doc}
    always = {
        "NetworkMode": asked.get("NetworkMode") or "default",
        "PublishAllPorts": bool(asked.get("PublishAllPorts")),
    }
    return {**doc, **shown, **always}


def _networks(doc: Any, around: Around) -> Doc:
    networks = doc if isinstance(doc, dict) else {}
    return {name: _endpoint(end, around.network_ids.get(name)) for name, end in networks.items()}


def _endpoint(end: Any, id_: str | None) -> Doc:
    shown = end if isinstance(end, dict) else {}
    return {**shown, "NetworkID": id_ or str(shown.get("NetworkID") or "")}


def _ports_by_name(doc: Any, container: Container, around: Around) -> Doc:
    ports: Doc = dict(doc) if isinstance(doc, dict) else {}
    for end, addresses in around.bound.items():
        ports[end] = [{"HostIp": ip, "HostPort": str(port)} for ip, port in addresses]
    return ports


def _port_list(doc: Any, around: Around) -> list[Doc]:
    exposed = [
        {"PrivatePort": port.get("PrivatePort"), "Type": port.get("Type")}
        for port in (doc if isinstance(doc, list) else ())
        if isinstance(port, dict) and f"{port.get('PrivatePort')}/{port.get('Type')}" not in around.bound
    ]
    published = [
        {"IP": ip, "PrivatePort": int(number), "PublicPort": port, "Type": protocol}
        for (number, _, protocol), addresses in (
            (end.partition("/"), found) for end, found in around.bound.items()
        )
        for ip, port in addresses
    ]
    return published + exposed


def _mounts(doc: Any, asked: Doc) -> list[Doc]:
    named = create.volumes(asked)
    mounts = [mount for mount in (doc if isinstance(doc, list) else ()) if isinstance(mount, dict)]
    return [_mount(mount, named.get(str(mount.get("Destination")), "")) for mount in mounts]


def _mount(mount: Doc, volume: str) -> Doc:
    """Where the data lies on the provider's disk is no path of the tenant's machine: Source is left empty."""
    if not volume:
        return mount
    return {**mount, "Type": "volume", "Name": volume, "Source": "", "Driver": "local"}


def stat(doc: Doc, container: Container) -> Doc:
    """One line of ``/stats``."""
    return {**doc, "id": container.id, "name": f"/{container.name}"}


def event(doc: Doc, container: Container, labels: Mapping[str, str]) -> Doc:
    """One event of the container's engine."""
    attributes = _object(_object(doc, "Actor"), "Attributes")
    shown = {**attributes, **labels, "name": container.name, "image": container.image}
    actor = {"ID": container.id, "Attributes": shown}
    return {**doc, "id": container.id, "from": container.image, "Actor": actor}


def removes_itself(container: Container) -> bool:
    """``--rm``"""
    return bool(create.section(body_of(container), "HostConfig").get("AutoRemove"))


def state_of(doc: Mapping[str, Any]) -> str:
    """``running``, ``exited``, ... of an inspect."""
    return str(_object(doc, "State").get("Status") or "created")


def exit_code(doc: Mapping[str, Any]) -> int:
    found = _object(doc, "State").get("ExitCode")
    return found if isinstance(found, int) else 0


def is_alive(doc: Mapping[str, Any]) -> bool:
    """Whether its published ports should be listened to: it runs, or its engine is about to run it again."""
    return state_of(doc) in ("running", "paused", "restarting")
