"""dig and a real resolver in front of our name server: an app's name is found as every browser would find it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from dockage.daemon.naming import Naming
from dockage.domain.deployment import Document, key52
from dockage.domain.identity import LeaseId
from dockage.domain.units import Instant
from dockage.protocol import dns as wire
from dockage.protocol.records import ZONE_LIFETIME, ZoneBody, seal, zone_topic
from dockage.testing.clock import ManualClock
from dockage.testing.directory import MemoryDirectory
from dockage.testing.keys import MemoryKeys, verify

from .test_authority import ALIAS, DOCUMENT, LEASE, NAME, OWN, ZONE
from .test_server import LOCAL, serving

TOOLS = Path(__file__).parents[2] / ".dev/dns-tools"
pytestmark = pytest.mark.skipif(not (TOOLS / "dig").exists(), reason="script/setup brings dig and unbound")


class Town:
    """Everything that the name server knows."""

    def __init__(self) -> None:
        self.documents: dict[LeaseId, Document] = {LEASE: DOCUMENT}
        clock = self.clock = ManualClock()
        market = self.market = MemoryDirectory(verify, clock)
        addresses = ("203.0.113.5", "2001:db8::5")
        self.naming = Naming(
            ZONE, addresses, lambda: self.documents, lambda lease: True, market, verify, clock, self._probe
        )
        self.naming.look()

    async def _probe(self, address: str) -> bool:
        return True


async def dig(port: int, *words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        TOOLS / "dig",
        f"@{LOCAL}",
        "-p",
        str(port),
        "+tries=2",
        "+time=3",
        *words,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    return out.decode()


def ours(port: int) -> dict[str, str]:
    """Our zone, and the domain that is delegated to us."""
    return dict.fromkeys((ZONE, "example.org"), f"{LOCAL}@{port}")


@asynccontextmanager
async def unbound(folder: Path, stubs: Mapping[str, str], *, tcp: bool = False) -> AsyncIterator[int]:
    """A resolver that knows who answers for which domain (address@port); *tcp*: that is how it asks them."""
    with_port = await asyncio.start_server(lambda reader, writer: writer.close(), LOCAL, 0)
    port = with_port.sockets[0].getsockname()[1]
    with_port.close()
    await with_port.wait_closed()
    told = "".join(f'stub-zone:\n  name: "{name}"\n  stub-addr: {at}\n' for name, at in stubs.items())
    (folder / "unbound.conf").write_text(
        f'server:\n  interface: {LOCAL}\n  port: {port}\n  do-not-query-localhost: no\n  username: ""\n  chroot: ""\n'
        f'  directory: "{folder}"\n  pidfile: ""\n  use-syslog: no\n  module-config: "iterator"\n  num-threads: 1\n'
        f"  use-caps-for-id: yes\n  so-reuseport: no\n  outgoing-range: 32\n"
        f"  tcp-upstream: {'yes' if tcp else 'no'}\n{told}"
    )
    process = await asyncio.create_subprocess_exec(
        TOOLS / "unbound", "-d", "-c", folder / "unbound.conf", stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(10):
            while b"start of service" not in (line := await process.stderr.readline()):
                assert line, "unbound did not start"
        yield port
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


async def test_dig_sees_what_the_spec_says() -> None:
    town = Town()
    async with serving(town.naming.respond) as port:
        assert (await dig(port, "+short", NAME, "A")).split() == ["203.0.113.5"]
        assert (await dig(port, "+short", "+tcp", ALIAS, "AAAA")).split() == ["2001:db8::5"]
        assert (await dig(port, "+short", f"_db._tcp.{NAME}", "SRV")).split()[2] == "20001"
        assert "status: NXDOMAIN" in await dig(port, f"nobody.{ZONE}")
        assert "status: REFUSED" in await dig(port, "example.com")
        whole = await dig(port, "+nocookie", NAME, "TXT")
        assert "deployment=shop" in whole
        assert "Warning" not in whole  # trailing bytes, a wrong id, a malformed packet


async def test_a_resolver_finds_a_deployment_and_forgets_it_soon(tmp_path: Path) -> None:
    """Letters in random case (0x20) included."""
    town = Town()
    async with serving(town.naming.respond) as port, unbound(tmp_path, ours(port)) as resolver:
        assert (await dig(resolver, "+short", NAME)).split() == ["203.0.113.5"]
        assert (await dig(resolver, "+short", ALIAS.upper())).split() == ["203.0.113.5"]
        assert (await dig(resolver, "+short", OWN, "AAAA")).split() == ["2001:db8::5"]
        assert "status: NXDOMAIN" in await dig(resolver, f"nobody.{ZONE}")

        told = await dig(resolver, NAME)
        assert int(next(x.split()[1] for x in told.splitlines() if x.startswith(f"{NAME}."))) <= 5
        town.documents[LEASE] = replace(DOCUMENT, sites=())
        town.naming.look()
        async with asyncio.timeout(20):
            while "status: NXDOMAIN" not in await dig(resolver, ALIAS):  # noqa: ASYNC110 - nobody tells a resolver
                await asyncio.sleep(0.5)


async def test_another_tenants_signed_zone_is_answered_in_full_and_its_alias_followed(tmp_path: Path) -> None:
    """A tenant that is not served here: all that we know of it is the record in the market, which it signed. What it
    wrote there with other tools (an alias, a text, a service) is there, too."""
    town, tenant = Town(), MemoryKeys(5)
    key, now = key52(tenant.node), town.clock.now()
    records = [
        wire.Record(f"blog.{key}", wire.A, 60, wire.address("198.51.100.2")[1]),
        wire.Record(f"blog.{key}", wire.AAAA, 60, wire.address("2001:db8::2")[1]),
        wire.Record(f"www.{key}", wire.CNAME, 60, wire.encode_name(f"blog.{key}.{ZONE}")),
        wire.Record(f"_x._tcp.{key}", wire.SRV, 60, wire.service(8443, f"blog.{key}.{ZONE}")),
        wire.Record(key, wire.TXT, 60, wire.text("mine")),
    ]
    body = ZoneBody(now, Instant(now + ZONE_LIFETIME), wire.write_answers(records))
    await town.market.publish(zone_topic(tenant.node), seal("zone", tenant.node, body, tenant.sign))
    blog, www = f"blog.{key}.{ZONE}", f"www.{key}.{ZONE}"
    async with serving(town.naming.respond) as port, unbound(tmp_path, ours(port)) as resolver:
        for at in (port, resolver):
            assert (await dig(at, "+short", blog, "A")).split() == ["198.51.100.2"]
            assert (await dig(at, "+short", blog, "AAAA")).split() == ["2001:db8::2"]
            assert (await dig(at, "+short", www, "CNAME")).split() == [f"{blog}."]
            assert (await dig(at, "+short", f"{key}.{ZONE}", "TXT")).split() == ['"mine"']
            assert (await dig(at, "+short", f"_x._tcp.{key}.{ZONE}", "SRV")).split()[2:] == [
                "8443",
                f"{blog}.",
            ]
        assert (await dig(resolver, "+short", www, "A")).split() == [f"{blog}.", "198.51.100.2"]


async def test_a_crowd_of_questions_gets_each_its_answer(tmp_path: Path) -> None:
    """dnsperf counts by code; fewer at once than what the pace of one network allows."""
    (tmp_path / "names").write_text(
        f"{NAME} A\n{ALIAS} AAAA\n{NAME} TXT\nnobody.{ZONE} A\nexample.com A\n" * 100
    )
    async with serving(Town().naming.respond) as port:
        how = ("-d", tmp_path / "names", "-n", "1", "-c", "4", "-q", "20", "-t", "30")
        process = await asyncio.create_subprocess_exec(
            *(TOOLS / "dnsperf", "-s", LOCAL, "-p", str(port), *how), stdout=asyncio.subprocess.PIPE
        )
        out, _ = await asyncio.wait_for(process.communicate(), 60)
    told = " ".join(out.decode().split())
    assert "Queries completed: 500 (100.00%)" in told
    for each in ("NOERROR 300", "NXDOMAIN 100", "REFUSED 100"):
        assert each in told
