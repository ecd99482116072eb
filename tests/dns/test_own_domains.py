"""Domains of a tenant's own, as the world sees them: a registrar's name server, a real resolver, our name server, a
gateway, a container. By CNAME, and delegated by NS; over UDP and over TCP; and what is said where a record is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from daemon.nodes import World
from dockage.adapters.dns.resolver import DnsResolver
from dockage.adapters.system.clock import SystemClock
from dockage.daemon import config as settings
from dockage.daemon import gateway
from dockage.daemon.ownership import Ownership
from dockage.domain.deployment import Site, key52, long_name
from dockage.domain.ownership import proof_text
from dockage.protocol.documents import Taken
from dockage.testing.directory import MemoryDirectory
from dockage.testing.keys import MemoryKeys, verify
from gateway.test_nodes import Town

from .test_resolvers import TOOLS, dig, unbound
from .test_server import LOCAL, serving

pytestmark = pytest.mark.skipif(not (TOOLS / "dig").exists(), reason="script/setup brings dig and unbound")

ZONE, AT = "example.net", "127.0.12.53"
"""Of the gateway: a delegation leads to port 53."""
TENANT = MemoryKeys(2).node
NAME = long_name("shop", TENANT, ZONE)
SAYS = proof_text(TENANT)


class Registrar:
    """The name server of ``example``: a record is a line, and where a domain is delegated it says to whom."""

    def __init__(self) -> None:
        self.lines: dict[tuple[str, str], str] = {}

    def set(self, name: str, kind: str, data: str) -> None:
        self.lines[name, kind] = data

    def respond(self, message: bytes, over_tcp: bool) -> bytes:
        query = dns.message.from_wire(message)
        answer = dns.message.make_response(query)
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(query.question[0].rdtype)
        cut = next((x for x, k in self.lines if k == "NS" and f".{name}".endswith(f".{x}")), None)
        if cut is not None:
            answer.authority = [dns.rrset.from_text(f"{cut}.", 0, "IN", "NS", self.lines[cut, "NS"])]
            return answer.to_wire()
        answer.flags |= dns.flags.AA
        found = [k for k in (kind, "CNAME") if (name, k) in self.lines]
        if found:
            answer.answer = [dns.rrset.from_text(f"{name}.", 0, "IN", found[0], self.lines[name, found[0]])]
            return answer.to_wire()
        if not any(f".{x}".endswith(f".{name}") for x, _ in self.lines):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        about = "ns.example. hostmaster.example. 1 3600 600 86400 0"
        answer.authority = [dns.rrset.from_text("example.", 0, "IN", "SOA", about)]
        return answer.to_wire()


class Internet:
    """*asks*: two resolvers, one asks over UDP and one over TCP."""

    def __init__(self, town: Town, registrar: Registrar, asks: tuple[int, int]) -> None:
        self.town, self.registrar, self.asks = town, registrar, asks

    async def publish(self, *hosts: str) -> Taken:
        return await self.town.publish(sites=(Site((*hosts, NAME), 80, "web"),))

    async def lack(self, host: str) -> str:
        """Why *host* is not served; the deployment's own name is, all the same."""
        taken = await self.publish(host)
        assert taken.lacking == (host,)
        assert taken.why is not None
        assert taken.why.code == "site.unproven"
        assert [await self.town.get(x) for x in (NAME, host)] == [200, 404]
        return taken.why.text

    async def browse(self, host: str) -> set[int]:
        """As browsers do, by each resolver and in both ways."""
        seen = set[int]()
        for resolver in self.asks:
            for how in ("+notcp", "+tcp"):
                *_, address = (await dig(resolver, "+short", how, host, "A")).split()
                assert address == AT
                seen.add(await self.town.get(host))
        return seen


@pytest.fixture(scope="module")
async def internet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Internet]:
    registrar, clock = Registrar(), SystemClock()
    async with AsyncExitStack() as stack:
        above = await stack.enter_async_context(serving(registrar.respond))
        stubs, folder = {"example": f"{LOCAL}@{above}", ZONE: f"{AT}@53"}, tmp_path_factory.mktemp
        udp = await stack.enter_async_context(unbound(folder("udp"), stubs))
        tcp = await stack.enter_async_context(unbound(folder("tcp"), stubs, tcp=True))
        world = await stack.enter_async_context(World(clock))
        town = await Town(world).build(DnsResolver(LOCAL, udp), AT)
        wanted = settings.Gateway(True, ZONE, (AT,), face=False, dns=f"{AT}:53")
        market = MemoryDirectory(verify, clock)
        loops = gateway.name_server(folder("state"), wanted, town.routes, market, clock)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(loop()) for loop in loops]  # type: ignore[arg-type]
            yield Internet(town, registrar, (udp, tcp))
            for task in tasks:
                task.cancel()


async def named(host: str) -> None:
    """Until our name server has looked at what is published; a resolver would remember for a while that it had not."""
    query = dns.message.make_query(host, "A")
    async with asyncio.timeout(60):
        while not (await dns.asyncquery.udp(query, AT, timeout=20)).answer:  # noqa: ASYNC110 - as a resolver asks again
            await asyncio.sleep(0.1)


async def test_a_cname_to_the_deployments_name_leads_to_its_container(internet: Internet) -> None:
    host = "www.shop.example"
    internet.registrar.set(host, "CNAME", f"{NAME}.")
    await internet.publish(host)
    await named(NAME)
    assert await internet.browse(host) == {200}
    whole = (await dig(internet.asks[1], "+short", host, "A")).split()
    assert whole == [f"{NAME}.", AT]


async def test_a_domain_delegated_to_the_gateway_is_answered_by_it_and_leads_to_the_container(
    internet: Internet,
) -> None:
    host = "own.example"
    internet.registrar.set(f"_dockage.{host}", "TXT", f'"{SAYS}"')
    await internet.publish(host)
    del internet.registrar.lines[f"_dockage.{host}", "TXT"]  # it is behind the name server that it had before
    internet.registrar.set(host, "NS", f"ns.{ZONE}.")
    await named(host)
    assert await internet.browse(host) == {200}
    for resolver in internet.asks:
        assert (await dig(resolver, "+short", host, "NS")).split() == [f"ns.{ZONE}."]
        assert "status: NXDOMAIN" in await dig(resolver, f"nobody.{host}")
    anew = Ownership(DnsResolver(LOCAL, internet.asks[0]), ZONE, SystemClock())
    [document] = internet.town.routes.documents().values()
    assert not await anew.lacking(document)  # by the gateway's own word now


async def test_a_record_that_is_missing_or_wrong_is_named_with_what_it_should_be(internet: Internet) -> None:
    set_ = internet.registrar.set
    set_("moved.shop.example", "CNAME", "old-host.example.")
    set_("sold.shop.example", "CNAME", f"shop.{key52(MemoryKeys(9).node)}.{ZONE}.")
    set_("_dockage.typo.shop.example", "TXT", f'"{SAYS}x"')
    for host, found in {
        "none.shop.example": " is yours: ",
        "moved.shop.example": " (it is a CNAME of old-host.example): ",
        "sold.shop.example": f" (it is a CNAME of shop.{key52(MemoryKeys(9).node)}.",
        "typo.shop.example": " (_dockage.typo.shop.example TXT names another key): ",
    }.items():
        said = await internet.lack(host)
        assert found in said
        assert f'_dockage.{host} TXT "{SAYS}"' in said
        assert said.endswith(f"{host} CNAME {NAME}")


async def test_a_name_as_long_as_names_are_is_refused_in_a_sentence(internet: Internet) -> None:
    host = ".".join(["a" * 60] * 4) + ".example"
    assert (await internet.lack(host)).startswith("nothing says that aaa")
