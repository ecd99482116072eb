"""A compose project: what it needs of the market, and how its containers are.

``docker compose`` itself reads the files: merging, interpolation and profiles are its own. Counterpart:
``protocol/docker/front_create.py``, which reads the same numbers from each create call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import click

from dockage.domain.doors import read_doors
from dockage.domain.resources import DEFAULT_CONTAINER, Resources
from dockage.protocol.docker import volume_create
from dockage.protocol.docker.front_create import RESERVED_CPUS, reserving
from dockage.protocol.docker.refusal import Refused

from . import complete, docker
from .client import Json
from .errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

WISH = "dockage."
OF_A_SERVICE = (WISH + "public", WISH + "host", RESERVED_CPUS)
"""Labels that say something of their own service only."""
UPDATE_WORDS = {
    "order": WISH + "update-order",
    "parallelism": WISH + "update-parallelism",
    "delay": WISH + "update-delay",
    "monitor": WISH + "update-monitor",
    "failure_action": WISH + "update-failure",
}
DURATION = re.compile(r"(?:(\d{1,4})h)?(?:(\d{1,6})m)?(?:(\d{1,8})(?:\.\d*)?s)?")
NO_WORDS: Mapping[str, str] = {}
MANY: Mapping[str, int] = {}
"""As many as the files say."""


class Files(NamedTuple):
    """Which project: the flags that go to every ``docker compose``."""

    words: tuple[str, ...]

    def ask(self, *words: str, socket: str = "") -> str:
        return docker.ask(["compose", *self.words, *words], docker.environment(socket))

    def run(self, *words: str, socket: str, quiet: bool = False) -> int:
        return docker.run(["compose", *self.words, *words], docker.environment(socket), quiet=quiet)


class Project(NamedTuple):
    name: str
    services: dict[str, int]
    """Service: its number of containers."""
    need: Resources
    labels: dict[str, str]
    """The ``dockage.*`` labels of its services, but those that each has for itself."""
    public: tuple[str, ...] = ()
    """The services that are to be public, if any are."""
    update: Mapping[str, str] = NO_WORDS
    """How a change is to be rolled out, in compose's own words, as labels."""
    reserved: Mapping[str, str] = NO_WORDS
    """Service to the label that says what its ``reservations.cpus`` does, which compose keeps to itself."""

    def question(self) -> Json:
        """The body of ``POST /v1/quote``."""
        return {
            "cpu_milli": self.need.cpu_milli,
            "memory_bytes": self.need.memory_bytes,
            "disk_bytes": self.need.disk_bytes,
            "cpu_soft_milli": self.need.cpu_soft_milli,
            "memory_soft_bytes": self.need.memory_soft_bytes,
            "labels": self.labels,
            "gateways": self.gateways,
        }

    @property
    def gateways(self) -> int:
        """As many as its labels ask for; wrong ones are refused by the daemon."""
        wanted = self.labels.get(WISH + "gateways", "1")
        return int(wanted) if self.public and wanted.isdecimal() and len(wanted) < 3 else 0


def file_options(function: F) -> F:
    """``-f -p --profile --env-file``; read them with ``files``."""
    for option in (
        click.option("--env-file", "env_files", multiple=True, metavar="FILE", help="As in docker compose."),
        click.option("--profile", "profiles", multiple=True, metavar="NAME", help="As in docker compose."),
        click.option(
            "-p",
            "--project-name",
            metavar="NAME",
            shell_complete=complete.of(complete.deployments),
            help="As in docker compose.",
        ),
        click.option("-f", "--file", "paths", multiple=True, metavar="FILE", help="As in docker compose."),
    ):
        function = option(function)
    return function


def files(
    paths: Sequence[str], project_name: str | None, profiles: Sequence[str], env_files: Sequence[str]
) -> Files:
    words = [word for path in paths for word in ("-f", path)]
    words += ["-p", project_name] if project_name else []
    words += [word for name in profiles for word in ("--profile", name)]
    words += [word for path in env_files for word in ("--env-file", path)]
    return Files(tuple(words))


# -- what it needs -----------------------------------------------------------------------------------
def read(which: Files, services: Sequence[str] = (), scale: Mapping[str, int] = MANY) -> Project:
    """*scale*: how many containers of a service, whatever the files say. Raises UsageError with what docker compose
    has to say about the files."""
    config = json.loads(which.ask("config", "--format", "json", *services))
    found: Mapping[str, Json] = config.get("services") or {}
    if not found:
        raise UsageError("compose.empty", "there is no service in the compose file")
    if unknown := [name for name in scale if name not in found]:
        raise UsageError("compose.scale", f"there is no service {unknown[0]} to scale")
    counts = {name: scale.get(name, _replicas(service)) for name, service in found.items()}
    need = sum((_need(service) * counts[name] for name, service in found.items()), Resources())
    labels, public = _labels(found), _public(found)
    need += _volumes(config, found)
    return Project(config["name"], counts, need, labels, public, update(found), reserved(found))


def _need(service: Json) -> Resources:
    resources = (service.get("deploy") or {}).get("resources") or {}
    limits, kept = resources.get("limits") or {}, resources.get("reservations") or {}
    cpus = float(limits.get("cpus") or service.get("cpus") or 0)
    quota, period = int(service.get("cpu_quota") or 0), int(service.get("cpu_period") or 0) or 100_000
    milli = round(cpus * 1000) or max(0, quota) * 1000 // period
    memory = int(limits.get("memory") or service.get("mem_limit") or 0)
    need = Resources(
        milli or DEFAULT_CONTAINER.cpu_milli,
        memory if memory > 0 else DEFAULT_CONTAINER.memory_bytes,
        DEFAULT_CONTAINER.disk_bytes,
    )
    label = str((service.get("labels") or {}).get(RESERVED_CPUS, "")) or _cores(kept)
    return reserving(need, label, int(kept.get("memory") or service.get("mem_reservation") or 0))


def reserved(services: Mapping[str, Json]) -> dict[str, str]:
    """``reservations.cpus`` as labels, of the services that have not the label itself."""
    found = dict[str, str]()
    for name, service in services.items():
        kept = ((service.get("deploy") or {}).get("resources") or {}).get("reservations") or {}
        if RESERVED_CPUS not in (service.get("labels") or {}) and (cores := _cores(kept)):
            found[name] = cores
    return found


def _cores(reservations: Json) -> str:
    return f"{float(reservations['cpus']):.3f}" if reservations.get("cpus") else ""


def _replicas(service: Json) -> int:
    given = (service.get("deploy") or {}).get("replicas")
    return int(service.get("scale", 1) if given is None else given)


def _volumes(config: Json, services: Mapping[str, Json]) -> Resources:
    """The room of the named volumes that the services mount."""
    used = {
        mount["source"]
        for service in services.values()
        for mount in service.get("volumes") or ()
        if mount.get("type") == "volume" and mount.get("source")
    }
    declared = config.get("volumes") or {}
    return Resources(disk_bytes=sum(_volume_size(name, declared.get(name) or {}) for name in used))


def _volume_size(name: str, volume: Json) -> int:
    if volume.get("external"):
        return 0  # it is there, and counted
    body = {
        "Name": volume.get("name") or name,
        "Driver": "local",
        "DriverOpts": volume.get("driver_opts") or {},
    }
    try:
        return volume_create.parse(body).size
    except Refused as error:
        raise UsageError("volume.refused", f"volume {name}: {error}") from None


def _labels(services: Mapping[str, Json]) -> dict[str, str]:
    """One lease holds them all, so two services that wish differently cannot both have their way."""
    found: dict[str, str] = {}
    for name, service in services.items():
        for label, value in (service.get("labels") or {}).items():
            if not label.startswith(WISH) or label in OF_A_SERVICE:
                continue
            if found.setdefault(label, str(value)) != str(value):
                raise UsageError(
                    "label.conflict", f"service {name} wants {label}={value}, another one {found[label]}"
                )
    return found


def update(services: Mapping[str, Json]) -> dict[str, str]:
    """compose's ``deploy.update_config`` as labels; the first service that has one speaks for all. Raises
    UsageError("label.*")."""
    for name, service in services.items():
        given = (service.get("deploy") or {}).get("update_config") or {}
        words = {
            label: str(given[word]) for word, label in UPDATE_WORDS.items() if given.get(word) is not None
        }
        for label in ("dockage.update-delay", "dockage.update-monitor"):
            if label in words:
                words[label] = str(_seconds(name, words[label]))
        if words:
            return words
    return {}


def _seconds(service: str, text: str) -> int:
    """Of a duration as compose writes it: ``1m30s``."""
    found = DURATION.fullmatch(text)
    if found is None or not any(found.groups()):
        raise UsageError("label.number", f"service {service}: update_config has no duration in {text[:40]!r}")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds


def _public(services: Mapping[str, Json]) -> tuple[str, ...]:
    """Raises UsageError("label.public" | "label.host")."""
    found = list[str]()
    for name, service in services.items():
        labels = service.get("labels") or {}
        public, host = (str(labels.get(WISH + label) or "") for label in ("public", "host"))
        if read_doors(name, public, host):
            found.append(name)
    return tuple(found)


# -- how it is ---------------------------------------------------------------------------------------
def containers(which: Files, socket: str) -> list[Json]:
    """``compose ps -a``, which prints a list or, since 2.21, an object a line."""
    text = which.ask("ps", "-a", "--format", "json", socket=socket).strip()
    if text.startswith("["):
        found: list[Json] = json.loads(text)
        return found
    return lines(text)


def lines(text: str) -> list[Json]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def pending(of: Sequence[Json]) -> list[str]:
    """The services that are neither up, healthy where they say how, nor done."""
    return sorted({c["Service"] for c in of if not (_is_up(c) or _is_done(c) or _sleeps(c))})


def _is_up(container: Json) -> bool:
    return container.get("State") == "running" and container.get("Health") in ("", None, "healthy")


def _sleeps(container: Json) -> bool:
    """By ``dockage.schedule``: it is started at its hour."""
    return "sleeps until" in str(container.get("Status"))


def _is_done(container: Json) -> bool:
    """A job that ended well."""
    return container.get("State") == "exited" and container.get("ExitCode") == 0


def failed(of: Sequence[Json]) -> list[str]:
    """One clause for each container that will not come up by itself."""
    found = []
    for c in of:
        if c.get("State") in ("exited", "dead") and not (_is_done(c) or _sleeps(c)):
            found.append(f"{c['Service']} exited with {c.get('ExitCode')}")
        elif c.get("Health") == "unhealthy":
            found.append(f"{c['Service']} is unhealthy")
    return found


def urls(of: Sequence[Json]) -> list[Json]:
    """The published ports, as this machine reaches them."""
    found = {
        (c["Service"], _reachable(port.get("URL") or ""), port["PublishedPort"], port["TargetPort"])
        for c in of
        for port in c.get("Publishers") or ()
        if port.get("PublishedPort")
    }
    return [
        {"service": service, "url": f"http://{host}:{published}", "port": target}
        for service, host, published, target in sorted(found)
    ]


def _reachable(host: str) -> str:
    if host in ("", "0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
