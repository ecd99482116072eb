"""``docker ps`` over all leases: one call a lease, all at once, none longer than three seconds."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from dockage.domain.errors import DockageError
from dockage.domain.identity import LeaseId
from dockage.protocol.docker import front_filters as filters
from dockage.protocol.docker import front_views as views
from dockage.protocol.docker.front_errors import ApiError
from dockage.protocol.docker.front_state import Container

from .engines import QUICK
from .parts import Parts

Item = dict[str, Any]
SHOWN_STATES = ("running", "paused", "restarting")


async def items(parts: Parts, size: bool = False) -> list[Item]:
    """Every container, newest first; what cannot be asked is shown as it was last seen."""
    leases = {container.lease for container in parts.books.shelf.containers.values()}
    found = await asyncio.gather(*(_of_lease(parts, lease, size) for lease in leases))
    ranks = _ranks(parts)
    return sorted((item for some in found for item in some), key=lambda item: -ranks.get(item["Id"], 0))


def _ranks(parts: Parts) -> dict[str, int]:
    """In which order they were made, by our own clock and, within a second, by our books: engines' clocks differ."""
    known = sorted(parts.books.shelf.containers.values(), key=lambda one: one.created)
    return {one.id: rank for rank, one in enumerate(known)}


async def chosen(parts: Parts, query: dict[str, str], wanted: filters.Filters, every: bool) -> list[Item]:
    """After ``filters``, ``limit`` and ``all``. Raises ApiError(400)."""
    found = await items(parts, query.get("size") in ("1", "true"))
    found = _around(parts, found, wanted)
    limit = query.get("limit") or "0"
    if not limit.removeprefix("-").isdecimal():
        raise ApiError(400, f"invalid limit: {limit[:40]!r}")
    count = max(0, int(limit[:9]))
    rest = {name: value for name, value in wanted.items() if name not in ("before", "since")}
    found = filters.select(found, rest, filters.CONTAINER)
    if not (every or count or {"status", "exited", "before", "since"} & wanted.keys()):
        found = [item for item in found if item["State"] in SHOWN_STATES]
    return found[:count] if count else found


def _around(parts: Parts, found: list[Item], wanted: filters.Filters) -> list[Item]:
    ranks = _ranks(parts)
    for ref in wanted.get("before", ()):
        moment = ranks[parts.books.container(ref).id]
        found = [item for item in found if ranks.get(item["Id"], 0) < moment]
    for ref in wanted.get("since", ()):
        moment = ranks[parts.books.container(ref).id]
        found = [item for item in found if ranks.get(item["Id"], 0) > moment]
    return found


async def _of_lease(parts: Parts, lease: LeaseId, size: bool) -> list[Item]:
    known = parts.books.at(lease)  # before the call: what is made meanwhile must not seem to be missing
    if any(container.ended for container in known):
        return [_last_seen(parts, container, "") for container in known]
    query = {"all": "1"} | ({"size": "1"} if size else {})
    try:
        _, answer = await parts.engines.call(
            lease, "GET", "/containers/json", query=query, limit=QUICK * (20 if size else 1)
        )
    except DockageError as error:
        if isinstance(error, ApiError) and error.status == 400:
            raise
        await parts.watch.check_end(lease)
        newest = [parts.books.shelf.containers.get(container.id) for container in known]
        return [_last_seen(parts, container, error.message) for container in newest if container]
    return _matched(parts, known, answer)


def _matched(parts: Parts, known: list[Container], answer: Any) -> list[Item]:
    remote = {str(item.get("Id")): item for item in answer or () if isinstance(item, dict)}
    shown = []
    for container in known:
        item = remote.get(container.remote)
        newest = parts.books.shelf.containers.get(container.id)
        if item is None:
            parts.watch.forget(container)
        elif newest is not None:
            shown.append(_rested(parts, newest, views.item(item, newest, parts.watch.around(newest))))
    return shown


def _rested(parts: Parts, container: Container, item: Item) -> Item:
    """What does not run because of the hour says so."""
    if item["State"] in SHOWN_STATES or not (until := parts.changes.sleeps(container)):
        return item
    return {**item, "Status": f"{item['Status']}, sleeps until {until}"}


def _last_seen(parts: Parts, container: Container, why: str) -> Item:
    item = views.item_of_inspect(last_inspect(parts, container, why), container.created)
    return _rested(parts, container, item)


def last_inspect(parts: Parts, container: Container, why: str) -> dict[str, Any]:
    """What to show of a container that cannot be asked: *why* is empty if its lease has ended."""
    doc = msgspec.json.decode(container.seen)
    shown = views.inspect(doc, container, parts.watch.around(container))
    return shown if container.ended else views.out_of_reach(shown, why)
