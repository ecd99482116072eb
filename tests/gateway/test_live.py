"""What a new document of a deployment leaves as it is, and what it changes at once; which connections are kept."""

from __future__ import annotations

from random import Random

import pytest
from msgspec.structs import replace

from dockage.adapters.gateway import live as module
from dockage.adapters.gateway.live import Backend, Count, Live, Way
from dockage.adapters.gateway.upstream import IDLE_MAX, IDLE_SEC, Upstream, Upstreams
from dockage.domain.deployment import Document, Replica, Site
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.units import Instant
from gateway.lab import HOST, INGRESS, TENANT, WEB

OTHER = Site(("api.example.com",), 8080, "api")
ONE, TWO = (
    Replica(NodeKey(bytes([n]) * 32), LeaseId(bytes([n]) * 16), (("web", f"{n:02x}" * 32),), b"")
    for n in (1, 2)
)


def document(*sites: Site, replicas: tuple[Replica, ...] = (ONE, TWO)) -> Document:
    return Document(TENANT, "shop", 1, Instant(0), sites or (WEB,), replicas, ())


def serving(way: Way) -> list[Replica]:
    return [backend.replica for backend in way.serving]


@pytest.fixture
def live() -> Live:
    return Live(INGRESS, document(), Count())


def the_way(live: Live) -> Way:
    [way] = live.ways.values()
    return way


def test_requests_are_counted_by_site_whatever_documents_come(live: Live) -> None:
    way = the_way(live)
    backend = way.choose((), Random(1))
    assert backend is not None
    way.entered(backend, 1.0)
    live.update(INGRESS, document(OTHER, replace(WEB, port=81)), live.count)
    assert [(x.in_flight, x.total) for x in live.signs().sites] == [(0, 0), (1, 1)]
    assert backend.in_flight == 1
    way.left(backend)
    assert [(x.in_flight, x.total) for x in live.signs().sites] == [(0, 0), (0, 1)]
    assert backend.in_flight == 0


def test_who_serves_is_as_the_newest_document_says(live: Live) -> None:
    way = the_way(live)
    assert serving(way) == [ONE, TWO]
    draining = replace(ONE, state="draining")
    live.update(INGRESS, document(replicas=(draining, TWO)), live.count)
    assert serving(way) == [TWO]
    live.update(INGRESS, document(replicas=(draining, replace(TWO, services=()))), live.count)
    assert serving(way) == []
    live.update(INGRESS, document(replicas=(ONE,)), live.count)
    assert serving(way) == [ONE]
    live.end()
    assert serving(way) == []


def test_a_way_leads_where_its_site_leads_now(live: Live) -> None:
    way = the_way(live)
    live.update(INGRESS, document(replace(WEB, port=81)), live.count)
    assert the_way(live) is way
    assert way.serving[0].place(way.site) == ("01" * 32, 81)


def test_who_came_by_a_way_that_is_no_more_is_still_led_to_replicas_of_now(live: Live) -> None:
    way = the_way(live)
    live.update(INGRESS, document(Site((HOST, "www.example.com"), 80, "web"), replicas=(TWO,)), live.count)
    assert the_way(live) is not way
    assert serving(way) == [TWO]


def test_a_full_replica_is_passed_by(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT_MAX", 2)
    live.update(INGRESS, document(replicas=(ONE,)), live.count)
    way = the_way(live)
    [backend] = way.serving
    for _ in range(2):
        assert way.choose((), Random(1)) is backend
        way.entered(backend, 1.0)
    assert way.choose((), Random(1)) is None
    way.left(backend)
    assert way.choose((), Random(1)) is backend


# -- kept connections ----------------------------------------------------------------------------------
class Kept:
    """A stream on which can be asked at once."""

    sink, cut = None, False

    @property
    def is_quiet(self) -> bool:
        return not self.cut

    def offer(self, data: bytes) -> bool:
        return not self.cut

    def abort(self) -> None:
        self.cut = True


def kept(live: Live, at: float = 0.0) -> tuple[Upstreams, Upstream, Kept]:
    backend, stream = next(iter(live.backends.values())), Kept()
    place = backend.place(WEB)
    assert place is not None
    upstream = Upstream(stream, b"", the_way(live), backend, place)  # type: ignore[arg-type]
    upstreams = Upstreams(lambda: at)
    upstreams.keep(upstream, at)
    return upstreams, upstream, stream


def ready(upstreams: Upstreams, live: Live, backend: Backend, now: float) -> Upstream | None:
    return upstreams.ready(the_way(live), backend, now)


def test_a_kept_connection_counts_at_the_lease_where_its_deployment_is_now(live: Live) -> None:
    before, now = live.count, Count()
    upstreams, upstream, _ = kept(live)
    live.update(LeaseId(b"another lease..!"), document(), now)
    assert ready(upstreams, live, upstream.backend, 1.0) is upstream
    assert not upstream.fresh
    assert upstream.ask(b"question", lambda _: True)
    upstream.heard(b"answer!")
    assert (now.into, now.out, before.into, before.out) == (8, 7, 0, 0)


def test_a_connection_is_kept_for_a_while_and_for_one_request(live: Live) -> None:
    upstreams, upstream, stream = kept(live)
    assert ready(upstreams, live, upstream.backend, IDLE_SEC) is upstream
    assert ready(upstreams, live, upstream.backend, IDLE_SEC) is None
    upstreams.keep(upstream, 0.0)
    assert ready(upstreams, live, upstream.backend, IDLE_SEC + 0.1) is None
    assert stream.cut


def test_no_connection_is_kept_to_who_fell_out_or_left_or_beyond_what_is_allowed(live: Live) -> None:
    upstreams, upstream, stream = kept(live)
    for _ in range(IDLE_MAX - 1):
        upstreams.keep(upstream, 0.0)
    assert not stream.cut
    upstreams.keep(upstream, 0.0)
    assert stream.cut
    for spoil in (
        lambda: live.missed(upstream.backend, 1.0, 1.0),
        lambda: live.update(INGRESS, document(replicas=(TWO,)), live.count),
    ):
        live.answered(upstream.backend, 0.0)
        upstream.backend.drop_idle()
        stream.cut = False
        upstreams.keep(upstream, 0.0)
        assert not stream.cut
        spoil()
        assert stream.cut, "what was kept is cut, too"
        stream.cut = False
        upstreams.keep(upstream, 2.0)
        assert stream.cut


def test_a_replica_with_other_containers_is_asked_on_new_connections(live: Live) -> None:
    upstreams, upstream, stream = kept(live)
    live.update(INGRESS, document(replicas=(replace(ONE, services=(("web", "cd" * 32),)), TWO)), live.count)
    assert stream.cut
    stream.cut = False
    upstreams.keep(upstream, 0.0)  # of a request that was under way to the old one
    assert ready(upstreams, live, upstream.backend, 0.0) is None
