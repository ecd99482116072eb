"""What goes wrong between us and a node, and what our user is told."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from bitcoin.node import Node, _free_port
from dockage.adapters.bitcoind import BitcoindChain, BitcoindWallet, Rpc, RpcAddress
from dockage.adapters.bitcoind.rpc import CALLS_AT_ONCE, sat
from dockage.adapters.bitcoind.wallet import _per_vbyte
from dockage.domain.errors import DockageError, Unavailable, UsageError
from dockage.domain.units import Sat

SCRIPT = b"\x51\x20" + bytes([7]) * 32
Serve = Callable[[int, str], Awaitable[Rpc]]


# -- a node that is not there, or not itself -------------------------------------------------------------
@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """An HTTP server that gives one answer to everything."""
    closing: list[Callable[[], Awaitable[None]]] = []

    async def start(status: int, body: str) -> Rpc:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=status, text=body)

        app = web.Application()
        app.router.add_post("/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        rpc = Rpc(RpcAddress(f"http://127.0.0.1:{port}", "u", "p"), timeout_sec=5)
        closing.extend((rpc.close, runner.cleanup))
        return rpc

    yield start
    for close in closing:
        await close()


async def test_a_node_on_another_network_is_asked_nothing_more(serve: Serve) -> None:
    rpc = await serve(200, '{"result": {"chain": "main"}, "error": null}')
    guarded = Rpc(rpc.address, timeout_sec=5, network="regtest")
    try:
        for ask in (BitcoindChain(guarded).height, BitcoindWallet(guarded).receive):
            with pytest.raises(UsageError, match="is on main, the configuration says regtest") as caught:
                await ask()
            assert caught.value.code == "chain.wrong-network"
    finally:
        await guarded.close()


async def code_of(call: Awaitable[object], kind: type[DockageError]) -> str:
    with pytest.raises(kind) as caught:
        await call
    return caught.value.code


async def test_a_node_that_is_not_running() -> None:
    rpc = Rpc(RpcAddress(f"http://127.0.0.1:{_free_port()}", "u", "p"))
    with pytest.raises(Unavailable, match="start it") as caught:
        await BitcoindChain(rpc).height()
    assert caught.value.code == "chain.unreachable"
    await rpc.close()


async def test_a_node_that_hangs_is_told_like_one_that_is_gone() -> None:
    """It takes connections and never answers: nobody waits for ever, however many ask; its first answer is heard."""
    over = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not over.is_set():
            await reader.read()  # until the caller gives up
        else:
            await reader.readuntil(b"\r\n\r\n")
            body = b'{"result": 7, "error": null}'
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
            )
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    rpc = Rpc(RpcAddress(f"http://127.0.0.1:{port}", "u", "p"), timeout_sec=0.5)
    try:
        asked = [code_of(BitcoindChain(rpc).height(), Unavailable) for _ in range(4 * CALLS_AT_ONCE)]
        async with asyncio.timeout(60):
            assert set(await asyncio.gather(*asked)) == {"chain.unreachable"}
        with pytest.raises(Unavailable, match="takes connections and does not answer"):
            await rpc.call("getbalances")
        over.set()
        async with asyncio.timeout(60):
            assert await first_answer(rpc) == 7
    finally:
        await rpc.close()
        server.close()
        await server.wait_closed()


async def first_answer(rpc: Rpc) -> int:
    while True:
        try:
            return await BitcoindChain(rpc).height()
        except Unavailable:
            await asyncio.sleep(0.1)


async def test_an_address_that_is_none() -> None:
    rpc = Rpc(RpcAddress("nonsense", "u", "p"))
    assert await code_of(rpc.call("getblockcount"), UsageError) == "chain.address"
    await rpc.close()


async def test_a_cookie_that_is_not_there(tmp_path: Path) -> None:
    rpc = Rpc(RpcAddress("http://127.0.0.1:1", cookie=tmp_path / ".cookie"))
    assert await code_of(rpc.call("getblockcount"), UsageError) == "chain.credentials"
    await rpc.close()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, "<html>"),
        (200, "[]"),
        (200, "{}"),
        (503, "Work queue depth exceeded"),
        (500, '{"result":null,"error":{"code":-28,"message":"Loading block index"}}'),
    ],
)
async def test_an_answer_that_is_no_bitcoinds(serve: Serve, status: int, body: str) -> None:
    assert await code_of((await serve(status, body)).call("x"), Unavailable) == "chain.unreachable"


@pytest.mark.parametrize("status", [401, 403])
async def test_credentials_that_are_refused(serve: Serve, status: int) -> None:
    assert await code_of((await serve(status, "")).call("x"), UsageError) == "chain.credentials"


async def test_an_unknown_network_is_named_as_useless(serve: Serve) -> None:
    rpc = await serve(200, '{"result":{"chain":"other"},"error":null}')
    assert await code_of(BitcoindChain(rpc).network(), UsageError) == "chain.network"
    assert await code_of(BitcoindWallet(rpc).balance(), UsageError) == "chain.network"


async def test_a_pruned_block_says_what_to_do() -> None:
    class Pruned(Rpc):
        async def call(self, method: str, *params: object, wallet: str | None = None) -> object:
            if method == "getblock":
                return self._result(
                    method,
                    500,
                    '{"result":null,"error":{"code":-1,"message":"Block not available (pruned data)"}}',
                )
            return {"gettxout": None, "getbestblockhash": "aa", "getblockheader": {"height": 9}}[method]

    chain = BitcoindChain(Pruned(RpcAddress()))
    with pytest.raises(Unavailable, match="prune=") as caught:
        await chain.spender(("00" * 32, 0), 3)  # type: ignore[arg-type]
    assert caught.value.code == "chain.pruned"


@pytest.mark.parametrize(
    ("estimate", "chain", "rate"),
    [
        ('{"feerate":0.00012345}', "main", 12_345),
        ('{"feerate":0.00000100}', "main", 1_000),
        ('{"feerate":0.10000000}', "main", 500_000),
        ('{"errors":["Insufficient data"]}', "main", 10_000),
        ('{"errors":["Insufficient data"]}', "regtest", 1_000),
    ],
)
async def test_fee_rates_are_floored_capped_and_guessed(estimate: str, chain: str, rate: int) -> None:
    class Answers(Rpc):
        async def call(self, method: str, *params: object, wallet: str | None = None) -> object:
            answer = {
                "estimatesmartfee": estimate,
                "getmempoolinfo": '{"mempoolminfee":0.00001000,"minrelaytxfee":0.00001000}',
                "getblockchaininfo": f'{{"chain":"{chain}"}}',
            }[method]
            return self._result(method, 200, f'{{"result":{answer},"error":null}}')

    assert await BitcoindChain(Answers(RpcAddress())).feerate(6) == rate


def test_the_password_is_not_shown() -> None:
    address = RpcAddress("http://127.0.0.1:1", "u", "swordfish")
    assert "swordfish" not in repr(address) + repr(Rpc(address)) + repr(BitcoindChain(Rpc(address)))


# -- amounts ---------------------------------------------------------------------------------------------
@given(st.integers(0, 21_000_000 * 10**8))
def test_every_amount_survives_the_way_through_json(amount: int) -> None:
    assert sat(Decimal(f"{amount // 10**8}.{amount % 10**8:08}")) == amount


def test_a_fraction_of_a_satoshi_is_an_error() -> None:
    with pytest.raises(ValueError, match="whole number"):
        sat(Decimal("0.000000001"))


@given(st.integers(0, 10_000_000))
def test_a_fee_rate_is_said_exactly(feerate: int) -> None:
    assert Decimal(_per_vbyte(feerate)) * 1000 == feerate


# -- a real one ------------------------------------------------------------------------------------------
@pytest.fixture
async def rpc(bitcoind: Node) -> AsyncIterator[Rpc]:
    rpc = Rpc(bitcoind.address)
    yield rpc
    await rpc.close()


async def test_a_wrong_password(bitcoind: Node) -> None:
    rpc = Rpc(RpcAddress(bitcoind.url, "test", "wrong"))
    assert await code_of(BitcoindChain(rpc).height(), UsageError) == "chain.credentials"
    await rpc.close()


async def test_a_cookie_is_read_again_when_it_changed(bitcoind: Node, tmp_path: Path) -> None:
    cookie = tmp_path / ".cookie"
    cookie.write_text("test:old")
    rpc = Rpc(RpcAddress(bitcoind.url, cookie=cookie))
    assert await code_of(rpc.call("getblockcount"), UsageError) == "chain.credentials"
    cookie.write_text(f"test:{bitcoind.password}")
    assert await rpc.call("getblockcount") >= 101
    await rpc.close()


async def test_a_locked_wallet(bitcoind: Node, rpc: Rpc) -> None:
    name = f"locked-{secrets.token_hex(6)}"
    wallet = BitcoindWallet(rpc, name)
    bitcoind.give(await wallet.receive(), 50_000)
    bitcoind.wallet(name).rpc("encryptwallet", "secret")
    with pytest.raises(UsageError, match="walletpassphrase") as caught:
        await wallet.fund([(SCRIPT, Sat(10_000))], 1000)
    assert caught.value.code == "wallet.locked"
    bitcoind.wallet(name).rpc("walletpassphrase", "secret", 60)
    await wallet.fund([(SCRIPT, Sat(10_000))], 1000)


async def test_a_wallet_survives_being_unloaded(bitcoind: Node, rpc: Rpc) -> None:
    name = f"unloaded/{secrets.token_hex(6)}"
    wallet = BitcoindWallet(rpc, name)
    await wallet.receive()
    bitcoind.rpc("unloadwallet", name)
    assert await wallet.balance() == (0, 0)


async def test_the_wallet_knows_the_depth_of_what_is_spent(bitcoind: Node, rpc: Rpc) -> None:
    """A close is seen to be buried even after its payout was spent again."""
    name = f"deep-{secrets.token_hex(6)}"
    wallet = BitcoindWallet(rpc, name)
    bitcoind.give(await wallet.receive(), 50_000)
    (coin,) = bitcoind.wallet(name).rpc("listunspent")
    sent = bitcoind.wallet(name).rpc("sendall", [await wallet.receive()])["txid"]
    bitcoind.mine()
    again = bitcoind.wallet(name).rpc("sendall", [await wallet.receive()])["txid"]
    bitcoind.mine()
    assert await BitcoindChain(rpc).depth(sent) is None
    chain = BitcoindChain(rpc, wallet=name)
    assert (await chain.depth(sent), await chain.depth(again)) == (2, 1)
    bitcoind.mine()
    assert (await chain.depth(sent), await chain.depth(coin["txid"])) == (3, 4)
