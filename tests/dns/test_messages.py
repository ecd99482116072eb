"""DNS messages: read and written as dnspython does, and no bytes of a stranger do harm."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockage.domain.errors import PeerError
from dockage.protocol import dns as ours

LABEL = st.from_regex(r"[a-z0-9_]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
NAME = st.lists(LABEL, min_size=1, max_size=6).map(".".join)
KIND = st.sampled_from(["A", "AAAA", "TXT", "SRV", "SOA", "NS", "CNAME", "ANY"])


def asked(name: str, kind: str = "A", **more: object) -> ours.Query:
    query = ours.read_query(dns.message.make_query(name, kind, **more).to_wire())
    assert query is not None
    return query


@given(NAME, KIND, st.one_of(st.none(), st.integers(0, 4096)))
def test_a_query_is_read_as_it_was_meant(name: str, kind: str, payload: int | None) -> None:
    message = dns.message.make_query(
        name, kind, use_edns=False if payload is None else 0, payload=payload or 0
    )
    query = ours.read_query(message.to_wire())
    assert query is not None
    assert (query.id, query.name, query.fault) == (message.id, name, ours.NOERROR)
    assert query.kind == dns.rdatatype.from_text(kind)
    assert query.edns == (payload is not None)
    assert query.room == max(512, min(payload or 0, 1232))


@given(NAME, st.lists(st.ip_addresses(v=4), max_size=4), st.lists(st.ip_addresses(v=6), max_size=4))
def test_an_answer_says_what_it_was_made_of(name: str, four: list[object], six: list[object]) -> None:
    query = asked(name)
    records = [ours.Record(name, *_timed(ours.address(str(x)))) for x in (*four, *six)]
    read = dns.message.from_wire(ours.write_response(query, ours.NOERROR, records))
    assert read.flags & dns.flags.AA
    assert read.id == query.id
    told = {ip_address(str(item)) for rrset in read.answer for item in rrset}
    assert told == {*four, *six}


def _timed(address: tuple[int, bytes]) -> tuple[int, int, bytes]:
    return address[0], 5, address[1]


def test_every_kind_of_record_is_as_others_write_it() -> None:
    name = "shop.example"
    records = [
        ours.Record(name, ours.SRV, 5, ours.service(8080, "gw.example")),
        ours.Record(name, ours.TXT, 5, ours.text("x" * 300)),
        ours.Record(name, ours.NS, 5, ours.encode_name("ns.example")),
        ours.Record(name, ours.SOA, 5, ours.authority("ns.example", "hostmaster.example", 7, 5)),
    ]
    read = dns.message.from_wire(ours.write_response(asked(name, "ANY"), ours.NOERROR, records))
    told = {dns.rdatatype.to_text(rrset.rdtype): str(rrset[0]) for rrset in read.answer}
    assert told["SRV"] == "0 0 8080 gw.example."
    assert told["TXT"] == f'"{"x" * 255}" "{"x" * 45}"'
    assert told["NS"] == "ns.example."
    assert told["SOA"] == "ns.example. hostmaster.example. 7 3600 600 86400 5"


def test_the_case_of_the_question_comes_back() -> None:
    """Resolvers hide bits in it (draft-vixie-dnsext-dns0x20)."""
    query = asked("ShOp.ExAmPlE")
    assert query.name == "shop.example"
    answer = ours.write_response(query, ours.NOERROR, [ours.Record(query.name, ours.A, 5, b"\1\2\3\4")])
    assert str(dns.message.from_wire(answer).question[0].name) == "ShOp.ExAmPlE."


def test_what_does_not_fit_is_asked_again_over_tcp() -> None:
    records = [ours.Record("a.example", ours.TXT, 5, ours.text("x" * 250))] * 6
    cut = dns.message.from_wire(ours.write_response(asked("a.example", "TXT", use_edns=0), 0, records))
    assert cut.flags & dns.flags.TC
    assert not cut.answer
    assert cut.edns == 0
    whole = dns.message.from_wire(ours.write_response(asked("a.example", "TXT"), 0, records, room=65_535))
    assert not whole.flags & dns.flags.TC


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda m: m.set_opcode(5), ours.NOTIMP),
        (lambda m: m.question.append(m.question[0]), ours.FORMERR),
        (lambda m: m.question.clear(), ours.FORMERR),
        (lambda m: m.use_edns(1), ours.BADVERS),
        (lambda m: m.answer.append(dns.rrset.from_text("a.b.", 1, "IN", "A", "1.1.1.1")), ours.FORMERR),
    ],
)
def test_odd_queries_are_refused_with_the_right_code(change: object, fault: int) -> None:
    message = dns.message.make_query("a.b", "A")
    change(message)  # type: ignore[operator]
    query = ours.read_query(message.to_wire())
    assert query is not None
    assert query.fault == fault
    assert dns.message.from_wire(ours.write_response(query, query.fault)).rcode() == fault


def test_another_class_is_refused() -> None:
    query = ours.read_query(dns.message.make_query("a.b", "TXT", rdclass="CH").to_wire())
    assert query is not None
    assert query.fault == ours.REFUSED


@given(st.binary(max_size=300))
def test_no_bytes_do_harm(noise: bytes) -> None:
    query = ours.read_query(noise)
    if query is not None:
        answer = ours.write_response(query, query.fault)
        assert len(answer) <= max(len(noise), 12) + 11  # no amplifier: at most EDNS on top
    with suppress(PeerError):
        ours.read_answers(noise, 64)


@given(st.data(), NAME)
def test_a_query_with_one_wrong_byte_does_no_harm(data: st.DataObject, name: str) -> None:
    wire = bytearray(dns.message.make_query(name, "A", use_edns=0).to_wire())
    wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    query = ours.read_query(bytes(wire))
    if query is not None:
        ours.write_response(query, query.fault)


def test_an_answer_is_no_query() -> None:
    """Or two servers would talk for ever."""
    assert ours.read_query(dns.message.make_response(dns.message.make_query("a.b", "A")).to_wire()) is None


@pytest.mark.parametrize(
    "name",
    [
        b"\xc0\x0c",  # points at itself
        b"\x01a\xc0\x0c",  # a loop of two
        b"\xc0\xff",  # to nowhere
        b"\x3f" + b"a" * 10,  # breaks off
        (b"\x3f" + b"a" * 63) * 4 + b"\0",  # 257 bytes
        b"\x41a\0",  # a label of a kind that was never defined
        b"\x03a.b\0",  # one label, not two
    ],
)
def test_hostile_names(name: bytes) -> None:
    with pytest.raises(PeerError):
        ours.read_name(b"\0" * 12 + name, 12)


@settings(max_examples=30)
@given(st.lists(st.tuples(NAME, st.ip_addresses(v=4)), max_size=4))
def test_compressed_answers_of_others_are_read(facts: list[tuple[str, object]]) -> None:
    response = dns.message.Message(id=0)
    response.flags |= dns.flags.QR
    for name, ip in facts:
        response.answer.append(dns.rrset.from_text(name + ".", 30, "IN", "A", str(ip)))
        response.answer.append(dns.rrset.from_text(name + ".", 30, "IN", "SRV", f"0 1 80 {name}."))
    read = ours.read_answers(response.to_wire(), 64)
    assert [x.name for x in read] == [name for name, _ in facts for _ in range(2)]
    again = dns.message.from_wire(ours.write_answers(read))
    assert {(str(r.name), str(x)) for r in again.answer for x in r} == {
        (str(r.name), str(x)) for r in response.answer for x in r
    }
