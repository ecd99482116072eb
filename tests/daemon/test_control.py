"""The control API over its socket: who may open it, what it answers, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon.nodes import BUSY, FREE_POLICY, Peer, World, rent_paid, until
from dockage.daemon.control import Control
from dockage.domain.channel import ChannelState
from dockage.domain.errors import Unavailable
from dockage.protocol.bitcoin import address as addresses


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


class Api:
    def __init__(self, socket: Path) -> None:
        self.socket = socket

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body or {})
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        head = f"{method} /v1{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(raw)}\r\n\r\n"
        writer.write(head.encode() + raw)
        answer = await reader.read()
        writer.close()
        first, _, rest = answer.partition(b"\r\n")
        return int(first.split()[1]), msgspec.json.decode(rest.partition(b"\r\n\r\n")[2])

    async def get(self, path: str) -> Any:
        status, answer = await self.ask("GET", path)
        assert status == 200, answer
        return answer

    async def post(self, path: str, body: Any = None) -> Any:
        status, answer = await self.ask("POST", path, body)
        assert status == 200, answer
        return answer

    async def refused(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        status, answer = await self.ask(method, path, body)
        assert set(answer) == {"code", "message"}
        assert answer["message"]
        return status, answer["code"]


@asynccontextmanager
async def control(peer: Peer, home: Path) -> AsyncIterator[Api]:
    socket = home / f"{peer._number}.sock"
    socket.write_text("left over by a dead daemon")
    serving = asyncio.get_running_loop().create_task(Control(peer.node, socket).serve())
    await until(lambda: stat.S_ISSOCK(socket.stat().st_mode) if socket.exists() else False)
    await asyncio.sleep(0)
    yield Api(socket)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert not socket.exists()


async def test_a_drain_is_asked_for_and_called_off(world: World, home: Path) -> None:
    provider = await world.provider(policy=FREE_POLICY)
    tenant = await world.tenant(coins=(), wallet=False)
    await tenant.rent("shop")
    async with control(provider, home) as api, control(tenant, home) as tenants:
        drained = await api.post("/drain", {"notice_sec": 600, "reason": "the machine moves house"})
        assert (drained["ending"]["in_sec"], len(drained["leases"])) == (600, 1)
        assert (await api.get("/status"))["provider"]["closed"]["code"] == "provider.draining"
        await until(lambda: all(x.announced for x in tenant.node.tenant.state.leases.values()))
        [lease] = (await tenants.get("/spend"))["leases"]
        assert lease["ending"]["text"] == "the machine moves house"
        assert (await api.post("/drain/cancel"))["ending"] is None
        assert (await api.get("/status"))["provider"]["closed"] is None
        assert await api.refused("POST", "/drain", {"notice_sec": -1}) == (400, "control.malformed")
        assert await tenants.refused("POST", "/drain") == (400, "provider.none")


async def test_only_the_owner_may_open_the_socket(world: World, home: Path) -> None:
    tenant = await world.tenant()
    async with control(tenant, home) as api:
        assert stat.S_IMODE(api.socket.stat().st_mode) == 0o600
        status = await api.get("/status")
    assert status["node"] == tenant.keys.node.hex()
    assert status["provider"] is None
    assert status["bitcoin"]["height"] == len(world.chain.blocks) - 1
    assert status["refused"] == {}


async def test_a_channel_shows_what_the_chain_really_took_of_it(world: World, home: Path) -> None:
    provider, tenant = await world.provider(), await world.tenant()
    async with control(provider, home) as seller, control(tenant, home) as api:
        await rent_paid(world, tenant)
        opened = tenant.paying.funding_fee
        world.chain.rate = 4_000
        (mine,) = (await api.get("/channels"))["channels"]
        assert (mine["overhead_sat_now"], mine["overhead_sat"]) == (154 * 4 + 205 * 4, opened + 205 * 4)
        assert mine["overhead_percent"] == round(100 * (opened + 820) / 36_000, 2)
        (theirs,) = (await seller.get("/channels"))["channels"]
        assert (
            theirs["overhead_sat"] == theirs["overhead_sat_now"]
        )  # what the funding cost is not ours to know
        quote = await api.post("/quote", {"cpu_milli": 1000})
        assert (quote["channel_sat"], quote["settlement_overhead_sat"]) == (0, 0)  # no new one is needed
        assert (quote["feerate"], quote["channel_sat_min"]) == (4000, 14_360)


async def test_a_leases_life_as_both_sides_see_it(world: World, home: Path) -> None:
    provider, tenant = await world.provider(), await world.tenant()
    async with control(provider, home) as seller, control(tenant, home) as api:
        (offer,) = (await api.post("/market"))["offers"]
        assert offer["provider"] == provider.keys.node.hex()
        assert offer["obstacles"] == []
        quote = await api.post("/quote", {"cpu_milli": 1000})
        assert (quote["msat_hour_max"], quote["channel_sat"]) == (36_000_000, 36_000)
        assert (quote["settlement_overhead_sat"], quote["settlement_overhead_percent"]) == (359, 1.0)
        assert (quote["feerate"], quote["channel_sat_min"]) == (1000, 3590)
        lease = await rent_paid(world, tenant)
        provider.host.start(lease, "busy", BUSY)
        await until(lambda: provider.earning.paid >= 560)
        (mine,) = (await api.get("/spend"))["leases"]
        assert (mine["lease"], mine["state"], mine["deployment"]) == (lease.hex(), "running", "web")
        assert mine["due_msat"] > 500_000
        assert sum(mine["lines"].values()) == pytest.approx(mine["due_msat"], abs=8)
        earned = await seller.get("/earnings")
        assert earned["running"] == 1
        assert earned["paid_sat"] >= 560
        (paying,) = (await api.get("/channels"))["channels"]
        assert (paying["role"], paying["state"], paying["capacity_sat"]) == ("paying", "open", 36_000)
        assert await api.refused("POST", f"/channels/{paying['channel'][:8]}/close") == (
            400,
            "channel.in-use",
        )
        assert (await api.post(f"/leases/{lease.hex()[:8]}/end"))["state"] == "ended"
        await api.post(f"/channels/{paying['channel'][:8]}/close")
        await until(lambda: provider.earning.state is ChannelState.CLOSING)
        why = await api.get("/why/web")
        assert why["leases"][0]["reason"]["code"] == "lease.released"


async def test_a_market_in_which_nothing_fits_says_why(world: World, home: Path) -> None:
    await world.provider(policy=FREE_POLICY)
    tenant = await world.tenant()
    async with control(tenant, home) as api:
        answer = await api.post("/market", {"cpu_milli": 64_000})
        assert answer["offers"][0]["obstacles"] == ["only 4 cores left"]
        assert "only 4 cores left" in answer["why"]
        assert await api.refused("POST", "/quote", {"cpu_milli": 64_000}) == (400, "market.nothing-fits")


async def test_the_wallet_receives_sends_and_backs_up(world: World, home: Path) -> None:
    await world.provider()
    tenant = await world.tenant(coins=(100_000, 50_000))
    async with control(tenant, home) as api:
        address = (await api.post("/wallet/receive"))["address"]
        assert addresses.decode(address, "regtest") in tenant.wallet._scripts
        sent = await api.post("/wallet/send", {"address": address, "amount_sat": 1000})
        assert sent["txid"] in world.chain.mempool
        await rent_paid(world, tenant)
        wallet = await api.get("/wallet")
        assert wallet["in_channels_sat"] == 36_000
        assert wallet["confirmed_sat"] + wallet["pending_sat"] == await tenant.worth()
        (line,) = (await api.get("/channels/backup"))["channels"]
        assert line["descriptor"].startswith("tr(")
        assert line["outpoint"] == f"{tenant.paying.txid}:{tenant.paying.vout}"


async def test_what_the_user_can_mend_is_400_what_is_not_there_404(world: World, home: Path) -> None:
    tenant = await world.tenant()
    async with control(tenant, home) as api:
        cases = {
            (400, "control.malformed"): [
                ("POST", "/market", b"{"),
                ("POST", "/market", {"cpus": 1}),
                ("POST", "/quote", {"cpu_milli": -1}),
                ("POST", "/wallet/send", {"address": "x", "amount_sat": 0}),
                ("POST", "/wallet/send", {"address": "x"}),
            ],
            (400, "label.unknown"): [("POST", "/market", {"labels": {"dockage.colour": "red"}})],
            (400, "provider.none"): [("GET", "/earnings", None), ("GET", "/machine", None)],
            (404, "control.not-found"): [
                ("GET", "/why/nothing", None),
                ("GET", "/why/no/thing%2f%7b", None),
                ("POST", "/leases/abcd/end", None),
                ("POST", "/leases/a/end", None),
                ("POST", "/channels/abcd/close", None),
            ],
            (404, "control.http"): [("GET", "/nonsense", None)],
            (405, "control.http"): [("DELETE", "/status", None)],
        }
        for expected, requests in cases.items():
            for method, path, body in requests:
                assert await api.refused(method, path, body) == expected, path


async def test_without_a_wallet_the_wallet_is_not_there(world: World, home: Path) -> None:
    tenant = await world.tenant(coins=(), wallet=False)
    async with control(tenant, home) as api:
        assert await api.refused("GET", "/wallet") == (400, "wallet.none")
        assert (await api.get("/status"))["bitcoin"] is None


async def test_a_chain_that_does_not_answer_is_503_and_no_reason_to_show_nothing(
    world: World, home: Path
) -> None:
    tenant = await world.tenant()
    rail: Any = tenant.node.rail

    class Down:
        def __getattr__(self, name: str) -> Any:
            async def call(*_: Any) -> Any:
                raise Unavailable("chain.unreachable", "the node is down")

            return call

    chain, rail.chain = rail.chain, Down()
    async with control(tenant, home) as api:
        assert (await api.get("/status"))["bitcoin"]["error"] == "the node is down"
        await until(lambda: rail.silence is not None)
        await asyncio.sleep(60)
        assert (await api.get("/status"))["bitcoin"]["silent_sec"] >= 60
        assert (await api.get("/channels"))["channels"] == []
        assert await api.refused("POST", "/wallet/send", {"address": "x", "amount_sat": 1}) == (
            503,
            "chain.unreachable",
        )
        rail.chain = chain
        await until(lambda: rail.silence is None)
        assert (await api.get("/status"))["bitcoin"]["silent_sec"] is None


async def test_a_market_that_is_silent_for_a_moment_is_asked_again(world: World, home: Path) -> None:
    tenant = await world.tenant()
    queries: Any = tenant.node.renting.queries
    ask, silent = queries.ask, [Unavailable("market.unreachable", "nobody answers")]

    async def try_to_ask(*which: Any) -> Any:
        if silent:
            raise silent.pop()
        return await ask(*which)

    queries.ask = try_to_ask
    async with control(tenant, home) as api:
        assert "offers" in await api.post("/market")
    assert not silent


async def test_a_fault_of_ours_is_500_and_the_next_request_is_answered(world: World, home: Path) -> None:
    tenant = await world.tenant()
    node: Any = tenant.node
    async with control(tenant, home) as api:
        working, node.renting.wish = node.renting.wish, None
        assert await api.refused("POST", "/market") == (500, "control.crashed")
        node.renting.wish = working
        await api.post("/market")
