"""The ``dockage.*`` labels: what Docker has no word for. Each field's docstring is its manual entry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args

import msgspec

from dockage.domain.doors import DOORS_MAX, Door, read_doors, read_hosts
from dockage.domain.errors import UsageError
from dockage.domain.offer import ISOLATIONS, OPACITIES
from dockage.domain.saving import Saving
from dockage.domain.scaling import Scaling
from dockage.domain.units import SECOND, Duration, Instant, Msat, Sat, msat
from dockage.domain.update import OnFailure, Order, Update
from dockage.node.kept import Goal
from dockage.protocol.docker import front_create as create
from dockage.protocol.docker.recipe import Recipe, RecipeContainer

from .calendar import asked_for, checked

PREFIX = "dockage."
COPIES_MAX = 32
GATEWAYS_MAX = 8
MOVE_PAUSE_MIN = 60
SLEEP_MIN = 5
"""Seconds: waking takes about one."""


class Wishes(msgspec.Struct, frozen=True):
    region: str = ""
    """``dockage.region``: only providers of this region."""
    provider: str = ""
    """``dockage.provider``: only the provider whose key begins with these hex digits."""
    max_msat_hour: Msat | None = None
    """``dockage.max-price``: sat per hour that the worst case may cost, network aside."""
    channel_sat: Sat | None = None
    """``dockage.channel-sat``: the size of a new payment channel, in satoshis; without it, what ``channel.hours`` of
    the worst case cost."""
    opacity: str = "open"
    """``dockage.opacity``: what the provider may see at most: ``open``, ``sealed`` or ``confidential``."""
    isolation: str = "container"
    """``dockage.isolation``: what keeps the container from the provider's machine at least: ``container``, ``gvisor``
    or ``vm``."""
    replicas: int | None = None
    """``dockage.replicas``: so many whole copies, each at another provider and behind another line. One that is lost is
    replaced; without this label and the next, nothing is."""
    standby: int = 0
    """``dockage.standby``: so many more leases that have everything and run nothing, for a failover in seconds; each
    costs its disk, and what its tariff wants for reserved CPU and memory."""
    data: str = "keep"
    """``dockage.data``: whether named volumes may be left behind when their provider is lost: ``keep`` waits for it,
    ``expendable`` starts anew with empty ones, once the old lease is over."""
    scale_max: int | None = None
    """``dockage.scale-max``: more replicas than ``dockage.replicas`` while there is load for them, up to this many."""
    scale_cpu: int | None = None
    """``dockage.scale-cpu``: the load that is aimed at, in percent of each replica's cores; 70 without this label."""
    scale_down_after: int | None = None
    """``dockage.scale-down-after``: seconds of less load before there are fewer replicas; 300 without this label."""
    schedule: str = ""
    """``dockage.schedule``: so many replicas at certain hours instead of ``dockage.replicas``, such as
    ``mon-fri 08:00-20:00 3; sat,sun 10:00-18:00 2; Europe/Berlin``; without days it is every day, without a zone it is
    UTC. Of windows that overlap the first one counts; 0 = nothing runs, and its lease costs what a standby's does."""
    scale_requests: int | None = None
    """``dockage.scale-requests``: the load that is aimed at, in requests and connections in flight for each replica, as
    the gateways count them; with ``dockage.scale-cpu`` whichever asks for more."""
    sleep_after: int | None = None
    """``dockage.sleep-after``: after so many seconds without a request at its gateways nothing of it runs; the next
    request waits there until it does again. While it sleeps its lease costs what a standby's does."""
    public: str = ""
    """``dockage.public``: the ports of this service that are to be public, with a name and TLS at a gateway: ``80`` (or
    ``80/http``: the gateway ends TLS), ``443/tls`` (it passes TLS on to the container), ``5432/tcp`` and ``27015/udp``
    (a port of the gateway; ``27015:27015/udp`` asks for that one); several with commas."""
    reserved_cpus: int | None = None
    """``dockage.reserved-cpus``: of this service's CPU limit, so many cores (``0.25``) are to be kept free for it;
    ``0`` for none. The rest may be sold to others while it is not used. Without this label all of the limit is
    reserved. For memory Docker has a word: ``--memory-reservation``, in compose ``reservations.memory``. ``dockage up``
    sets it from compose's ``reservations.cpus``, which ``docker compose`` itself tells no engine."""
    host: str = ""
    """``dockage.host``: names of your own for it, such as ``shop.example.org``, with commas; let their DNS lead to the
    gateways. Without it the service has a name in each gateway's zone."""
    gateways: int = 1
    """``dockage.gateways``: at so many gateways, each another operator's behind another line; each is one more
    lease, paid by the bytes. 0 = not public for now."""
    update_order: str = "start-first"
    """``dockage.update-order``: how a changed service is rolled out where something is kept up or public: with
    ``start-first`` a copy is changed and must be healthy before what served is drained; ``stop-first`` changes what is
    there, and rents nothing more. What has named volumes is always changed where it is."""
    update_parallelism: int = 1
    """``dockage.update-parallelism``: so many replicas at a time, once the first new one serves; 0 = all at once."""
    update_delay: int = 0
    """``dockage.update-delay``: seconds between two batches."""
    update_monitor: int = 5
    """``dockage.update-monitor``: seconds that a new replica must serve well before the next one."""
    update_within: int = 120
    """``dockage.update-within``: seconds that a new replica may take to be healthy and to answer its gateways."""
    update_failure: str = "rollback"
    """``dockage.update-failure``: what is done when it is not: ``rollback`` brings back what ran before, ``pause``
    leaves the new one beside it and out of the rotation, ``continue`` goes on."""
    move_saving: int | None = None
    """``dockage.move-saving``: percent that another provider must be cheaper, at worst, for a replica to move there by
    itself; the new copy serves before the old one stops. Without this label nothing moves for its price; what has named
    volumes does only with ``dockage.data=expendable``."""
    move_pause: int = 3_600
    """``dockage.move-pause``: seconds between two such moves, and that everything must have been well before."""
    max_spend: Msat | None = None
    """``dockage.max-spend``: sat per hour that all leases of the deployment together may cost at worst, network
    aside."""

    @property
    def is_kept(self) -> bool:
        """Whether the controller keeps it up; anything else stays where it was put."""
        asked = (self.replicas, self.scale_max, self.sleep_after, self.move_saving)
        return self.standby > 0 or bool(self.schedule) or any(x is not None for x in asked)

    @property
    def update(self) -> Update:
        return Update(
            cast("Order", self.update_order),
            self.update_parallelism,
            Duration(self.update_delay * SECOND),
            Duration(self.update_monitor * SECOND),
            Duration(self.update_within * SECOND),
            cast("OnFailure", self.update_failure),
        )

    @property
    def scaling(self) -> Scaling:
        count = 1 if self.replicas is None else self.replicas
        down = 300 if self.scale_down_after is None else self.scale_down_after
        most = max(count, self.scale_max or 0)
        cpu = self.scale_cpu if self.scale_requests else self.scale_cpu or 70
        return Scaling(count, most, cpu, self.scale_requests, Duration(down * SECOND))


def read_wishes(labels: Mapping[str, str]) -> Wishes:
    """From a container's labels; others than ``dockage.*`` are ignored. Raises UsageError("label.*")."""
    wishes = Wishes()
    for label, value in labels.items():
        if label.startswith(PREFIX):
            wishes = msgspec.structs.replace(wishes, **_read(label.removeprefix(PREFIX), value.strip()))
    return wishes


def _read(name: str, value: str) -> dict[str, object]:
    match name:
        case "region" | "provider":
            return {name: value.lower()}
        case "max-price":
            return {"max_msat_hour": msat(_sat(name, value))}
        case "max-spend":
            return {"max_spend": msat(_sat(name, value))}
        case "public":
            read_doors("service", value)
            return {name: value}
        case "reserved-cpus":
            return {"reserved_cpus": create.reserved_milli(value)}
        case "host":
            return {name: ",".join(read_hosts(value))}
        case "gateways":
            return {name: _count(name, value, GATEWAYS_MAX)}
        case "replicas" | "standby" | "scale-max":
            return {name.replace("-", "_"): _count(name, value, COPIES_MAX)}
        case "schedule":
            checked(value)
            return {name: value}
        case "scale-requests":
            return {"scale_requests": max(1, _count(name, value, 999_999))}
        case "sleep-after":
            return {"sleep_after": max(SLEEP_MIN, _count(name, value, 86_400))}
        case "scale-cpu":
            return {"scale_cpu": max(1, _count(name, value, 100))}
        case "scale-down-after":
            return {"scale_down_after": _count(name, value, 86_400)}
        case "update-order":
            return {"update_order": _one_of(name, value, get_args(Order))}
        case "update-failure":
            return {"update_failure": _one_of(name, value, get_args(OnFailure))}
        case "update-parallelism":
            return {"update_parallelism": _count(name, value, COPIES_MAX)}
        case "update-delay" | "update-monitor" | "update-within":
            return {name.replace("-", "_"): _count(name, value, 3_600)}
        case "move-saving":
            return {"move_saving": max(1, _count(name, value, 99))}
        case "move-pause":
            return {"move_pause": max(MOVE_PAUSE_MIN, _count(name, value, 604_800))}
        case "data":
            return {name: _one_of(name, value, ("keep", "expendable"))}
        case "channel-sat":
            return {"channel_sat": _sat(name, value)}
        case "opacity":
            return {name: _one_of(name, value, OPACITIES)}
        case "isolation":
            return {name: _one_of(name, value, ISOLATIONS)}
        case _:
            raise UsageError(
                "label.unknown", f"there is no label {PREFIX}{name}; see docs/reference/labels.md"
            )


def _count(name: str, value: str, most: int) -> int:
    if not value.isdecimal() or len(value) > 6 or int(value) > most:
        raise UsageError(
            "label.number", f"{PREFIX}{name} takes a number from 0 to {most}, not {value[:40]!r}"
        )
    return int(value)


def _sat(name: str, value: str) -> Sat:
    if not value.isdecimal() or len(value) > 15:
        raise UsageError("label.number", f"{PREFIX}{name} takes a whole number of satoshis, not {value!r}")
    return Sat(int(value))


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise UsageError("label.value", f"{PREFIX}{name} is one of {', '.join(allowed)}, not {value!r}")
    return value


# -- for the controller --------------------------------------------------------------------------------
def recipe_labels(recipe: Recipe) -> dict[str, str]:
    """The ``dockage.*`` labels of all its containers; of two that differ the later one's."""
    found = dict(recipe.wishes)
    for one in recipe.containers:
        found |= {name: value for name, value in _labels(one).items() if name.startswith(PREFIX)}
    return found


def recipe_wishes(recipe: Recipe) -> Wishes:
    """Raises UsageError("label.*")."""
    return read_wishes(recipe_labels(recipe))


def goal_of(wishes: Wishes, recipe: Recipe, digest: str, now: Instant) -> Goal:
    """What the controller aims at."""
    scheduled = asked_for(wishes.schedule, now)
    count = scheduled if scheduled is not None else 1 if wishes.replicas is None else wishes.replicas
    if recipe.volumes:
        count = min(count, 1)  # one writer
    return Goal(
        replicas=count,
        standby=wishes.standby,
        least=count if wishes.sleep_after is None else 0,
        most=0 if scheduled == 0 else max(count, wishes.scaling.most),
        scheduled=scheduled is not None,
        max_msat_hour=wishes.max_spend,
        holds_data=bool(recipe.volumes),
        expendable=wishes.data == "expendable",
        recipe=digest,
        ready=any(one.runs for one in recipe.containers),
        update=wishes.update,
        saving=Saving(wishes.move_saving, Duration(wishes.move_pause * SECOND)),
    )


# -- for gateways --------------------------------------------------------------------------------------
def service_of(one: RecipeContainer) -> str:
    """What gateways call it: compose's name for the service, else the container's."""
    return _labels(one).get("com.docker.compose.service") or one.name


def recipe_doors(recipe: Recipe) -> tuple[Door, ...]:
    """What is to be public; each service once. Raises UsageError("label.*")."""
    found = dict[str, tuple[Door, ...]]()
    for one in recipe.containers:
        labels, service = _labels(one), service_of(one)
        found[service] = read_doors(
            service, labels.get(PREFIX + "public", ""), labels.get(PREFIX + "host", "")
        )
    doors = tuple(door for each in found.values() for door in each)
    if len(doors) > DOORS_MAX:
        raise UsageError("label.public", f"at most {DOORS_MAX} ports of a deployment can be public")
    return doors


def gateway_wishes(wishes: Wishes, left: Msat | None) -> Wishes:
    """Of a gateway: what the deployment's labels say about everybody. *left*: what it may cost an hour."""
    prices = [x for x in (wishes.max_msat_hour, left) if x is not None]
    return Wishes(
        region=wishes.region,
        max_msat_hour=min(prices, default=None),
        channel_sat=wishes.channel_sat,
    )


def _labels(one: RecipeContainer) -> dict[str, str]:
    return create.labels(msgspec.json.decode(one.body, type=dict[str, Any]))
