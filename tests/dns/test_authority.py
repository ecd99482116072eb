"""What a gateway answers to whom: by name, by who is up, and from whose word."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.deployment import Document, Replica, Site, alias, key52, key_of, long_name
from dockage.domain.errors import PeerError, UsageError
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.ownership import proof_text
from dockage.domain.units import HOUR, Instant
from dockage.protocol import dns
from dockage.protocol.authority import Address, Answer, Ask, Self, View, look_up, places
from dockage.protocol.zones import Zone, read_zone, write_zone

TENANT, OTHER = NodeKey(bytes(range(32))), NodeKey(b"o" * 32)
LEASE = LeaseId(b"l" * 16)
ZONE = "gw.example"
NAME, ALIAS, OWN = long_name("shop", TENANT, ZONE), alias("shop", TENANT, ZONE), "shop.example.org"
SITES = (
    Site((NAME, ALIAS, OWN), 80, "web"),
    Site((), 5432, "db", "tcp", 20_001),
    Site((), 53, "names", "udp", 20_002),
)
REPLICA = Replica(NodeKey(b"p" * 32), LeaseId(b"r" * 16), (("web", "ab" * 32),), b"grant")
DOCUMENT = Document(TENANT, "shop", 3, Instant(HOUR), SITES, (REPLICA,), (NodeKey(b"g" * 32),))
HERE, THERE = dns.address("203.0.113.5"), dns.address("198.51.100.9")
SELF = Self(ZONE, (HERE, dns.address("2001:db8::5")), 7)


def view(
    *, up: bool = True, zones: dict[NodeKey, Zone] | None = None, dead: Collection[Address] = ()
) -> View:
    return View(SELF, places({LEASE: DOCUMENT}), zones or {}, lambda lease: up, dead)


def zone_of(tenant: NodeKey, **apps: list[str]) -> Zone:
    return read_zone(tenant, write_zone(tenant, apps))


def told(name: str, kind: int = dns.A, by: View | None = None, turn: int = 0) -> list[bytes]:
    answer = look_up(by or view(), name, kind, turn)
    assert isinstance(answer, Answer)
    assert answer.code == dns.NOERROR
    assert all(record.name == name for record in answer.answers)
    return [record.data for record in answer.answers]


def code(name: str, kind: int = dns.A) -> int:
    answer = look_up(view(), name, kind)
    assert isinstance(answer, Answer)
    assert not answer.answers
    return answer.code


# -- names -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [NAME, ALIAS, OWN])
def test_each_name_of_a_deployment_leads_to_the_gateway(name: str) -> None:
    assert told(name) == [HERE[1]]
    assert told(name, dns.AAAA) == [SELF.addresses[1][1]]
    assert b"deployment=shop" in told(name, dns.TXT)[0]


def test_no_answer_names_a_provider() -> None:
    for kind in (dns.A, dns.AAAA, dns.TXT, dns.SRV, dns.ANY, dns.NS, dns.SOA):
        answer = look_up(view(), NAME, kind)
        assert isinstance(answer, Answer)
        for record in (*answer.answers, *answer.authorities):
            assert REPLICA.provider not in record.data
            assert REPLICA.provider.hex().encode() not in record.data


def test_ports_are_found_by_service() -> None:
    assert told(f"_db._tcp.{NAME}", dns.SRV) == [dns.service(20_001, NAME)]
    assert told(f"_names._udp.{NAME}", dns.SRV) == [dns.service(20_002, NAME)]
    assert told(f"_web._tcp.{NAME}", dns.SRV) == [dns.service(443, NAME)]
    assert told(f"_cache._tcp.{NAME}", dns.SRV) == []


def test_the_gateway_answers_for_itself() -> None:
    assert told(ZONE) == told(f"ns.{ZONE}") == [HERE[1]]
    assert told(ZONE, dns.NS) == [dns.encode_name(f"ns.{ZONE}")]
    assert len(told(ZONE, dns.SOA)) == 1


def test_a_domain_of_the_tenants_own_can_be_delegated() -> None:
    assert told(OWN, dns.NS) == [dns.encode_name(f"ns.{ZONE}")]
    answer = look_up(view(), f"deeper.{OWN}", dns.A)
    assert isinstance(answer, Answer)
    assert (answer.code, answer.authorities[0].name) == (dns.NXDOMAIN, OWN)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("example.com", dns.REFUSED),
        ("", dns.REFUSED),
        ("org", dns.REFUSED),
        (f"nobody.{ZONE}", dns.NXDOMAIN),
        (f"shop.{'y' * 51}!.{ZONE}", dns.NXDOMAIN),
        (f"_._tcp.x.{ZONE}", dns.NXDOMAIN),
    ],
)
def test_other_names(name: str, expected: int) -> None:
    assert code(name) == expected


def test_a_name_without_that_kind_exists_all_the_same() -> None:
    answer = look_up(view(), NAME, dns.CNAME)
    assert isinstance(answer, Answer)
    assert (answer.code, answer.answers, answer.authorities[0].kind) == (dns.NOERROR, (), dns.SOA)


def test_a_zone_is_not_given_away() -> None:
    assert code(ZONE, dns.AXFR) == dns.REFUSED


# -- who is up ---------------------------------------------------------------------------------------
def test_both_gateways_while_both_serve() -> None:
    zones = {TENANT: zone_of(TENANT, shop=["203.0.113.5", "198.51.100.9"])}
    assert told(NAME, by=view(zones=zones)) == [HERE[1], THERE[1]]
    assert told(NAME, by=view(zones=zones), turn=1) == [THERE[1], HERE[1]]


def test_without_replicas_here_the_other_gateway_is_named() -> None:
    zones = {TENANT: zone_of(TENANT, shop=["203.0.113.5", "198.51.100.9"])}
    assert told(NAME, by=view(up=False, zones=zones)) == [THERE[1]]


def test_a_dead_gateway_is_not_named() -> None:
    zones = {TENANT: zone_of(TENANT, shop=["203.0.113.5", "198.51.100.9"])}
    assert told(NAME, by=view(zones=zones, dead=[THERE])) == [HERE[1]]


def test_where_nobody_is_up_an_address_is_better_than_none() -> None:
    assert told(NAME, by=view(up=False)) == [HERE[1]]


# -- other tenants -----------------------------------------------------------------------------------
def test_any_gateway_answers_for_any_tenant() -> None:
    name = long_name("blog", OTHER, ZONE)
    assert look_up(view(), name, dns.A) == Ask(OTHER)
    zones = {OTHER: zone_of(OTHER, blog=["198.51.100.9", "2001:db8::9"])}
    assert told(name, by=view(zones=zones)) == [THERE[1]]
    assert told(name, dns.AAAA, view(zones=zones)) == [dns.address("2001:db8::9")[1]]
    gone = look_up(view(zones={OTHER: {}}), name, dns.A)
    assert isinstance(gone, Answer)
    assert gone.code == dns.NXDOMAIN


def test_a_tenant_may_write_more_into_its_zone() -> None:
    """pkarr's tools make zones too; what is said under the key is passed on under it."""
    key = key52(OTHER)
    records = [
        dns.Record(f"www.{key}", dns.CNAME, 60, dns.encode_name("blog.example.net")),
        dns.Record(key, dns.TXT, 60, dns.text("hello")),
        dns.Record(key, 65, 60, b"\0\1\0"),  # HTTPS: passed over
    ]
    zones = {OTHER: read_zone(OTHER, dns.write_answers(records))}
    assert told(f"www.{key}.{ZONE}", by=view(zones=zones)) == [dns.encode_name("blog.example.net")]
    assert told(f"{key}.{ZONE}", dns.TXT, view(zones=zones)) == [dns.text("hello")]


# -- lies --------------------------------------------------------------------------------------------
def test_a_zone_says_nothing_about_others() -> None:
    foreign = dns.write_answers([dns.Record(f"shop.{key52(OTHER)}", dns.A, 60, b"\6\6\6\6")])
    with pytest.raises(PeerError, match="own key"):
        read_zone(TENANT, foreign)


def test_an_address_of_odd_length_is_no_address() -> None:
    record = dns.Record(f"shop.{key52(OTHER)}", dns.A, 60, b"\1\2\3")
    assert read_zone(OTHER, dns.write_answers([record])) == {}


def test_a_zone_that_grows_too_large_is_refused_with_advice() -> None:
    with pytest.raises(UsageError, match="fewer") as caught:
        write_zone(TENANT, {f"app{x}": ["203.0.113.5", "198.51.100.9"] for x in range(30)})
    assert caught.value.code == "zone.oversized"


@given(st.binary(min_size=32, max_size=32))
def test_a_key_is_read_as_it_was_written(key: bytes) -> None:
    assert key_of(key52(NodeKey(key))) == key


@given(st.text(alphabet="ybndrfg8ejkmcpqxot1uwisza345h769", min_size=52, max_size=52))
def test_each_key_has_one_name(text: str) -> None:
    key = key_of(text)
    assert key is None or key52(key) == text


@given(
    st.one_of(
        st.sampled_from([NAME, ALIAS, OWN, ZONE, f"ns.{ZONE}", f"_db._tcp.{NAME}"]),
        st.lists(st.text(alphabet="abz_-.09\x00\xff", max_size=8), max_size=5).map(".".join),
    ),
    st.integers(0, 65_535),
    st.integers(0, 65_535),
)
def test_any_question_has_an_answer(name: str, kind: int, turn: int) -> None:
    found = look_up(view(), name, kind, turn)
    assert isinstance(found, (Answer, Ask))


def test_a_delegated_domain_stays_proven_for_whom_it_was_published() -> None:
    """The owner's own TXT is behind the old name server then."""
    assert told(f"_dockage.{OWN}", dns.TXT) == [dns.text(proof_text(TENANT))]
    assert code(f"_dockage.deeper.{OWN}", dns.TXT) == dns.NXDOMAIN
    assert code("_dockage.example.org", dns.TXT) == dns.REFUSED, "nobody has proven that one"
    assert code(f"_dockage.{ALIAS}", dns.TXT) == dns.NXDOMAIN, "the zone's names need no proof"


def test_the_proof_for_an_authority_is_shown_while_it_looks_and_at_that_name_only() -> None:
    proving = view()._replace(self=SELF._replace(proofs=("proof",)))
    assert told(f"_acme-challenge.{ZONE}", dns.TXT, proving) == [dns.text("proof")]
    assert told(f"_acme-challenge.{ZONE}", dns.A, proving) == []
    assert code(f"_acme-challenge.{ZONE}", dns.TXT) == dns.NXDOMAIN
    other = look_up(proving, f"_acme-challenge.{ALIAS}", dns.TXT)
    assert isinstance(other, Answer)
    assert not other.answers
