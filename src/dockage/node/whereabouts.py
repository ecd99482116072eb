"""Where we are as others see us, and which relay we are reached through: decided here, performed by the daemon.

A NAT gives us an address that only others can see. What most of those we asked agree on is advertised; where they
disagree, the NAT has an address for each of them (a symmetric one) and none is worth advertising: then the relay is
the way. A relay is kept while it answers; the nearest other takes its place when it does not. One that is paid
(``daemon/paidrelay.py``) is used only while no free one is to be had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from ipaddress import ip_address
from typing import TypeAlias

import msgspec

from dockage.domain.identity import NodeKey
from dockage.domain.units import MINUTE, SECOND, Duration, Instant

SIGHTING_LASTS = Duration(3 * MINUTE)
OBSERVERS_MAX = 8
RELAYS_MAX = 8
MISSES = 2
"""Probes of a relay in a row without an answer, and it is taken for dead."""
WATCH_EVERY = Duration(1 * SECOND)
"""Between two probes of the relay that we use; with a second to answer, a dead one is left after 3 s."""
PROBE_EVERY = Duration(15 * SECOND)
"""Of the others."""
STEADY = Duration(1 * MINUTE)
"""A free relay must have answered for so long before it takes the place of one that we pay for."""


class Sighting(msgspec.Struct, frozen=True):
    address: str
    """``ip:port``; "" if it could not tell, being relayed itself."""
    relay: str
    """The URL of the relay that it runs, or ""."""
    at: Instant


class Health(msgspec.Struct, frozen=True):
    """What the probes of a relay say of it."""

    probed: Instant = Instant(0)
    distance: Duration | None = None
    """Of the last answer; None before the first, and while it is taken for dead."""
    misses: int = 0
    since: Instant = Instant(0)
    """When it began to answer; 0 while it does not."""

    def is_steady(self, now: Instant) -> bool:
        return bool(self.since) and now - self.since >= STEADY


class Whereabouts(msgspec.Struct, frozen=True):
    configured: tuple[str, ...] = ()
    """Relays that our user named. Those that observers run count only where none is named."""
    takes_told: bool = True
    sightings: Mapping[NodeKey, Sighting] = {}
    advertised: str = ""
    relays: Mapping[str, Health] = {}
    """All that may be used."""
    relay: str = ""
    """The one in use."""
    leased: str = ""
    """The one that we pay for, if any: it is used only while no free one is to be had."""

    @property
    def has_free(self) -> bool:
        """Whether a relay that costs nothing answers."""
        return any(h.distance is not None for url, h in self.relays.items() if url != self.leased)


class Observed(msgspec.Struct, frozen=True):
    """*by* answered where it sees us, and which relay it runs."""

    by: NodeKey
    address: str
    relay: str = ""


class Probed(msgspec.Struct, frozen=True):
    """A relay answered after *distance*, or did not."""

    url: str
    distance: Duration | None


class Leased(msgspec.Struct, frozen=True):
    """We pay for this relay now; "": for none any more."""

    url: str


class Advertise(msgspec.Struct, frozen=True):
    address: str


class Withdraw(msgspec.Struct, frozen=True):
    address: str


class UseRelay(msgspec.Struct, frozen=True):
    url: str


class LeaveRelay(msgspec.Struct, frozen=True):
    url: str


Event: TypeAlias = Observed | Probed | Leased
Effect: TypeAlias = Advertise | Withdraw | UseRelay | LeaveRelay


def begin(relays: tuple[str, ...], takes_told: bool) -> Whereabouts:
    """*takes_told*: whether relays of observers may be used, if none is named."""
    urls = tuple(dict.fromkeys(map(normal, relays)))[:RELAYS_MAX]
    return Whereabouts(urls, takes_told and not urls, relays={url: Health() for url in urls})


def step(state: Whereabouts, event: Event, now: Instant) -> tuple[Whereabouts, tuple[Effect, ...]]:
    match event:
        case Observed():
            return _observed(state, event, now)
        case Probed():
            return _probed(state, event, now)
        case Leased():
            return _leased(state, event)


def due(state: Whereabouts, now: Instant) -> tuple[str, ...]:
    """The relays to be probed now. When the one in use falters we must know at once who could take its place."""
    falters = not state.relay or state.relays[state.relay].misses > 0
    waits = {url: WATCH_EVERY if falters or url == state.relay else PROBE_EVERY for url in state.relays}
    return tuple(url for url, health in state.relays.items() if now - health.probed >= waits[url])


def normal(url: str) -> str:
    """As the link writes it."""
    return url if url.endswith("/") else url + "/"


# -- the address ---------------------------------------------------------------------------------------
def _observed(state: Whereabouts, event: Observed, now: Instant) -> tuple[Whereabouts, tuple[Effect, ...]]:
    fresh = {key: s for key, s in state.sightings.items() if now - s.at < SIGHTING_LASTS and key != event.by}
    while len(fresh) >= OBSERVERS_MAX:
        del fresh[min(fresh, key=lambda key: fresh[key].at)]
    address = event.address if is_plausible(event.address) else ""
    fresh[event.by] = Sighting(address, event.relay, now)
    old, agreed = state.advertised, _agreed(fresh)
    state = msgspec.structs.replace(_with_told(state, fresh), sightings=fresh, advertised=agreed)
    if agreed == old:
        return state, ()
    return state, (*((Advertise(agreed),) if agreed else ()), *((Withdraw(old),) if old else ()))


def _agreed(sightings: Mapping[NodeKey, Sighting]) -> str:
    """What more than half of them see; "" if there is no such address."""
    votes = Counter(s.address for s in sightings.values() if s.address)
    if not votes:
        return ""
    address, count = votes.most_common(1)[0]
    return address if 2 * count > votes.total() else ""


def is_plausible(text: str) -> bool:
    """An ``ip:port`` that somebody else could send to; a liar must not make us name the others' own machines."""
    host, _, port = text.rpartition(":")
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False
    nowhere = address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local
    return not nowhere and port.isdecimal() and 0 < int(port) < 1 << 16


# -- the relay -----------------------------------------------------------------------------------------
def _with_told(state: Whereabouts, sightings: Mapping[NodeKey, Sighting]) -> Whereabouts:
    """The relays that those we asked run. The one in use stays while it lives, whoever told of it."""
    if not state.takes_told:
        return state
    told = [state.relay, state.leased, *(normal(s.relay) for s in sightings.values() if s.relay)]
    urls = [url for url in dict.fromkeys(told) if url][:RELAYS_MAX]
    return msgspec.structs.replace(state, relays={url: state.relays.get(url, Health()) for url in urls})


def _probed(state: Whereabouts, event: Probed, now: Instant) -> tuple[Whereabouts, tuple[Effect, ...]]:
    before = state.relays.get(event.url)
    if before is None:
        return state, ()  # forgotten meanwhile
    misses = 0 if event.distance is not None else before.misses + 1
    distance = event.distance if event.distance is not None else before.distance
    health = Health(now, None if misses >= MISSES else distance, misses, _since(before, misses, now))
    state = msgspec.structs.replace(state, relays={**state.relays, event.url: health})
    if event.url == state.relay and before.misses >= MISSES and not misses:
        return state, (
            LeaveRelay(event.url),
            UseRelay(event.url),
        )  # the link itself would try again much later
    return _choose(state, now)


def _since(before: Health, misses: int, now: Instant) -> Instant:
    return Instant(0) if misses else before.since or now


def _leased(state: Whereabouts, event: Leased) -> tuple[Whereabouts, tuple[Effect, ...]]:
    """The link leaves what is paid no more at once: nothing comes by it. The next probe of another chooses that."""
    url, old = event.url and normal(event.url), state.leased
    relays = {at: health for at, health in state.relays.items() if at != old or at in state.configured}
    if url:
        relays.setdefault(url, Health())
    left = bool(old) and old == state.relay != url
    state = msgspec.structs.replace(state, leased=url, relays=relays, relay="" if left else state.relay)
    return state, (LeaveRelay(old),) if left else ()


def _choose(state: Whereabouts, now: Instant) -> tuple[Whereabouts, tuple[Effect, ...]]:
    alive = {url: h.distance for url, h in state.relays.items() if h.distance is not None and not h.misses}
    if state.relay and state.relays[state.relay].distance is not None:
        if state.relay != state.leased:
            return state, ()
        alive = {url: distance for url, distance in alive.items() if state.relays[url].is_steady(now)}
        alive.pop(state.leased, None)
    if not alive:
        return state, ()  # the one in use may come back, and another would be no better
    nearest = min(alive, key=lambda url: (url == state.leased, alive[url], url))
    left = (LeaveRelay(state.relay),) if state.relay else ()
    return msgspec.structs.replace(state, relay=nearest), (UseRelay(nearest), *left)
