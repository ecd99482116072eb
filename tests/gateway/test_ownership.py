"""Whose a domain is: what its owner says in the DNS counts, and nothing that a tenant says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from dockage.adapters.dns.resolver import DnsResolver
from dockage.daemon import ownership
from dockage.daemon.ownership import KEPT_MAX, PROVEN_FOR, REFUSED_FOR, SILENT_FOR, Ownership
from dockage.domain.deployment import Document, Site, alias, key52, long_name
from dockage.domain.errors import DockageError, Unavailable
from dockage.domain.identity import NodeKey
from dockage.domain.ownership import proof_text
from dockage.domain.units import Duration, Instant
from dockage.testing.clock import ManualClock

TENANT, THIEF = NodeKey(b"t" * 32), NodeKey(b"x" * 32)
ZONE, HOST = "example.net", "shop.example.com"
SAYS = f"_dockage.{HOST}"


class Names:
    """The DNS of the world."""

    def __init__(
        self, texts: dict[str, tuple[str, ...]] | None = None, aliases: dict[str, str] | None = None
    ) -> None:
        self.records, self.aliases = texts or {}, aliases or {}
        self.asked, self.is_silent = 0, False

    async def texts(self, name: str) -> tuple[str, ...]:
        self._count()
        return self.records.get(name, ())

    async def alias(self, name: str) -> str | None:
        self._count()
        return self.aliases.get(name)

    def _count(self) -> None:
        self.asked += 1
        if self.is_silent:
            raise Unavailable("dns.silent", "no answer")


def document(*hosts: str, tenant: NodeKey = TENANT) -> Document:
    return Document(tenant, "shop", 1, Instant(1), (Site(hosts or (HOST,), 80, "web"),), (), ())


async def outcome(names: Names | Ownership | None, *hosts: str, tenant: NodeKey = TENANT) -> str:
    owns = names if isinstance(names, Ownership) else Ownership(names, ZONE, ManualClock())
    try:
        lacking = await owns.lacking(document(*hosts, tenant=tenant))
    except DockageError as error:
        return error.code
    return next((why.code for why in lacking.values()), "proven")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (Names({SAYS: (proof_text(TENANT),)}), "proven"),
        (Names({SAYS: ("v=spf1 -all", f" {proof_text(TENANT)} ")}), "proven"),
        (Names({SAYS: (proof_text(THIEF), proof_text(TENANT))}), "proven"),
        (Names({"_dockage.example.com": (proof_text(TENANT),)}), "proven"),
        (Names(aliases={HOST: long_name("shop", TENANT, ZONE)}), "proven"),
        (Names(aliases={HOST: long_name("shop", TENANT, "other.example.org")}), "proven"),
        (Names(aliases={HOST: alias("shop", TENANT, ZONE)}), "proven"),
        (Names(aliases={HOST: "cdn.example.com", "cdn.example.com": alias("shop", TENANT, ZONE)}), "proven"),
        # nothing, and what looks like something
        (Names(), "site.unproven"),
        (Names({SAYS: (proof_text(THIEF),)}), "site.unproven"),
        (Names({HOST: (proof_text(TENANT),)}), "site.unproven"),
        (Names({SAYS: (proof_text(TENANT) + "x",)}), "site.unproven"),
        (Names({SAYS: (proof_text(TENANT).upper(),)}), "site.unproven"),
        (Names({SAYS: (f"dockage=1 tenant={key52(TENANT)}",)}), "site.unproven"),
        (Names({"_dockage.com": (proof_text(TENANT),)}), "site.unproven"),
        (Names({"_dockage.other.example.com": (proof_text(TENANT),)}), "site.unproven"),
        # the nearest word counts: the owner of the domain has given this host to somebody else
        (
            Names({SAYS: (proof_text(THIEF),), "_dockage.example.com": (proof_text(TENANT),)}),
            "site.unproven",
        ),
        (
            Names({SAYS: (proof_text(THIEF),)}, {HOST: long_name("shop", TENANT, ZONE)}),
            "site.unproven",
        ),
        # pointed at a gateway, but at nobody's or another's name there
        (Names(aliases={HOST: ZONE}), "site.unproven"),
        (Names(aliases={HOST: long_name("shop", THIEF, ZONE)}), "site.unproven"),
        (Names(aliases={HOST: alias("shop", TENANT, "evil.example.org")}), "site.unproven"),
        (Names(aliases={HOST: f"shop.x{key52(TENANT)}.{ZONE}"}), "site.unproven"),
        (Names(aliases={HOST: f"shop.{ZONE}.{key52(TENANT)}"}), "site.unproven"),
        (Names(aliases={HOST: "a.example.com", "a.example.com": HOST}), "site.unproven"),
    ],
)
async def test_what_proves_a_domain(names: Names, expected: str) -> None:
    assert await outcome(names) == expected


@pytest.mark.parametrize("host", ["shop.EXAMPLE.com", "shop.example.com.", "*.example.com", "bücher.example"])
def test_a_host_has_one_form_in_a_document(host: str) -> None:
    assert not Site((host,), 80, "web").is_sane


async def test_other_scripts_are_proven_in_the_form_of_the_dns() -> None:
    names = Names({"_dockage.xn--bcher-kva.example": (proof_text(TENANT),)})
    assert await outcome(names, "xn--bcher-kva.example") == "proven"


async def test_a_name_that_only_ends_like_the_zone_is_no_name_of_the_zone() -> None:
    assert await outcome(Names(), "shopexample.net") == "site.unproven"
    assert await outcome(Names(), alias("shop", TENANT, ZONE)) == "proven", "routing says whose that is"


async def test_one_proof_is_not_one_for_all() -> None:
    names = Names({SAYS: (proof_text(TENANT),)})
    owns = Ownership(names, ZONE, ManualClock())
    assert list(await owns.lacking(document(HOST, "bank.example.org"))) == ["bank.example.org"]


async def test_without_a_resolver_there_are_no_own_domains() -> None:
    assert await outcome(None) == "site.no-own-domains"
    assert await outcome(None, alias("shop", TENANT, ZONE)) == "proven"


async def test_answers_are_kept_for_a_while_each_for_its_tenant() -> None:
    clock, names = ManualClock(), Names({SAYS: (proof_text(TENANT),)})
    owns = Ownership(names, ZONE, clock)
    assert [await outcome(owns) for _ in range(5)] == ["proven"] * 5
    assert names.asked == 1
    assert await outcome(owns, tenant=THIEF) == "site.unproven"
    asked = names.asked
    assert await outcome(owns, tenant=THIEF) == "site.unproven"
    assert names.asked == asked
    names.records = {SAYS: (proof_text(THIEF),)}  # sold
    clock.pass_(Duration(REFUSED_FOR + 1))
    assert await outcome(owns, tenant=THIEF) == "proven"
    clock.pass_(PROVEN_FOR)
    assert await outcome(owns) == "site.unproven"


async def test_a_silent_resolver_proves_nothing_new_and_takes_nothing_old_for_a_day() -> None:
    clock, names = ManualClock(), Names({SAYS: (proof_text(TENANT),)})
    owns = Ownership(names, ZONE, clock)
    assert await outcome(owns) == "proven"
    names.is_silent = True
    clock.pass_(Duration(SILENT_FOR - 1))
    assert await outcome(owns) == "proven"
    assert await outcome(owns, tenant=THIEF) == "site.resolver"
    clock.pass_(Duration(1))
    assert await outcome(owns) == "site.resolver"


async def test_a_slow_resolver_hides_no_host_that_was_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = ("a.example.com", "b.example.com")
    clock, names = ManualClock(), Names({"_dockage.example.com": (proof_text(TENANT),)})
    owns = Ownership(names, ZONE, clock)
    assert not await owns.lacking(document(*hosts))
    clock.pass_(PROVEN_FOR)
    monkeypatch.setattr(ownership, "PROVE_SEC", 0.01)
    monkeypatch.setattr(names, "texts", lambda _: asyncio.sleep(60, ()))
    assert not await owns.lacking(document(*hosts))
    assert list(await owns.lacking(document(*hosts, "new.example.com"))) == ["new.example.com"]


async def test_what_was_served_before_a_restart_counts_while_the_resolver_is_silent() -> None:
    clock, names = ManualClock(), Names()
    owns = Ownership(names, ZONE, clock)
    clock.pass_(Duration(2 * PROVEN_FOR))
    owns.remember(document())
    names.is_silent = True
    assert not await owns.lacking(document())
    names.is_silent = False
    assert [why.code for why in (await owns.lacking(document())).values()] == ["site.unproven"]


async def test_what_is_kept_is_bounded() -> None:
    owns = Ownership(Names(), ZONE, ManualClock())
    for number in range(KEPT_MAX + 10):
        await outcome(owns, f"a{number}.example.com")
    assert len(owns._found) == KEPT_MAX


# -- a resolver on a socket ------------------------------------------------------------------------------
Make = Callable[[dns.message.Message], list[dns.message.Message]]


class Answering(asyncio.DatagramProtocol):
    def __init__(self, make: Make) -> None:
        self._make = make

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        for answer in self._make(dns.message.from_wire(data)):
            self._transport.sendto(answer.to_wire(), addr)  # type: ignore[attr-defined]


def world(query: dns.message.Message) -> list[dns.message.Message]:
    """Somebody slips in an answer to another question before the right one."""
    forged, answer = dns.message.make_response(query), dns.message.make_response(query)
    forged.id ^= 1
    name, kind = query.question[0].name.to_text(), query.question[0].rdtype
    forged.answer = [dns.rrset.from_text(name, 5, "IN", "TXT", '"forged"')]
    if name == f"{SAYS}." and kind == dns.rdatatype.TXT:
        answer.answer = [
            dns.rrset.from_text(name, 5, "IN", "CNAME", "texts.example."),
            dns.rrset.from_text("texts.example.", 5, "IN", "TXT", '"one" " piece"', '"two"'),
        ]
    elif name == f"{HOST}." and kind == dns.rdatatype.CNAME:
        answer.answer = [dns.rrset.from_text(name, 5, "IN", "CNAME", "Shop.Example.NET.")]
    elif name == "broken.example.com.":
        answer.set_rcode(dns.rcode.SERVFAIL)
    elif name == "none.example.com.":
        answer.set_rcode(dns.rcode.NXDOMAIN)
    return [forged, answer]


@pytest.fixture
async def resolver() -> AsyncIterator[DnsResolver]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Answering(world), ("127.0.0.1", 0))
    yield DnsResolver("127.0.0.1", transport.get_extra_info("sockname")[1])
    transport.close()


async def test_the_resolver_is_asked_over_the_network(resolver: DnsResolver) -> None:
    assert set(await resolver.texts(SAYS)) == {"one piece", "two"}
    assert await resolver.alias(HOST) == ZONE.replace("example", "shop.example")
    assert await resolver.texts(HOST) == ()
    assert await resolver.texts("none.example.com") == ()
    assert await resolver.alias("none.example.com") is None
    with pytest.raises(Unavailable) as caught:
        await resolver.texts("broken.example.com")
    assert caught.value.code == "dns.failed"
