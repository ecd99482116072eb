"""JSON-RPC to one bitcoind. Amounts stay exact: JSON numbers become ``Decimal`` and then whole satoshis.

What goes wrong on the way is sorted here once: not there or not ready -> ``Unavailable``; our user's settings ->
``UsageError``; what the node itself answers -> ``RpcError``, which its two callers translate.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.units import Sat

CALLS_AT_ONCE = 8
"""bitcoind serves 4 at a time and queues 16 by default."""
BRIEF = 5.0
"""Seconds for a call that costs the node nothing, and for all once one was not answered: whoever asks should hear soon
that the node hangs. The first answer ends that."""
EASY = frozenset({"getblockcount"})
COIN = 100_000_000
"""sat"""

IN_WARMUP = -28


@dataclass(frozen=True)
class RpcAddress:
    """Where the node answers and how we prove that we may ask: a cookie file or user and password."""

    url: str = "http://127.0.0.1:8332"
    """http://host:port"""
    user: str = ""
    password: str = field(default="", repr=False)
    cookie: Path | None = None
    """``<datadir>/<network>/.cookie``, written anew at each start of bitcoind; used if *user* is empty."""

    def authorization(self) -> str:
        """The HTTP header. Raises UsageError("chain.credentials") if there is no cookie to read."""
        if self.user or self.cookie is None:
            return aiohttp.encode_basic_auth(self.user, self.password, "utf-8")
        try:
            user, _, password = self.cookie.read_text().strip().partition(":")
        except OSError as error:
            raise UsageError(
                "chain.credentials",
                f"cannot read bitcoind's cookie {self.cookie} ({error.strerror}): is it running, "
                "and may this user read its data folder?",
            ) from error
        return aiohttp.encode_basic_auth(user, password, "utf-8")


class RpcError(Exception):
    """What bitcoind answered. Never leaves this package."""

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(f"{method}: {message} ({code})")
        self.code = code
        self.message = message


class Rpc:
    """One node. Use from one event loop; ``close`` at the end."""

    def __init__(self, address: RpcAddress, timeout_sec: float = 30.0, network: str = "") -> None:
        """*timeout_sec*: for one call; its wait in our queue takes as long again at most. *network*: the only one that
        this node may be on ("" = any)."""
        self.address = address
        self._unchecked = network
        self._timeout_sec = timeout_sec
        self._hangs = False
        """The last call that ended was not answered."""
        self._session: aiohttp.ClientSession | None = None
        self._auth: str | None = None
        self._slots = asyncio.Semaphore(CALLS_AT_ONCE)

    def __repr__(self) -> str:
        return f"<Rpc {self.address.url}>"

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def call(self, method: str, *params: Any, wallet: str | None = None) -> Any:
        """The result. Raises RpcError, Unavailable("chain.unreachable"), or UsageError("chain.credentials" |
        "chain.wrong-network")."""
        if self._unchecked:
            await self._check_network(self._unchecked)
        return await self._call(method, params, wallet)

    async def _check_network(self, wanted: str) -> None:
        """Before anything else is asked of it: play money and real money must never be mixed up."""
        found = (await self._call("getblockchaininfo", (), None))["chain"]
        if found != wanted:
            raise UsageError(
                "chain.wrong-network",
                f"bitcoind at {self.address.url} is on {found}, the configuration says {wanted}: correct one of them",
            )
        self._unchecked = ""

    async def _call(self, method: str, params: tuple[Any, ...], wallet: str | None) -> Any:
        await self._queue(method)
        try:
            status, body = await self._post(method, params, wallet)
            if status == 401 and self.address.cookie is not None:
                self._auth = None  # the node was restarted and has a new cookie
                status, body = await self._post(method, params, wallet)
        finally:
            self._slots.release()
        return self._result(method, status, body)

    async def _queue(self, method: str) -> None:
        try:
            async with asyncio.timeout(self._limit(method)):
                await self._slots.acquire()
        except TimeoutError:
            raise self._silent(method) from None

    def _limit(self, method: str) -> float:
        return min(BRIEF, self._timeout_sec) if self._hangs or method in EASY else self._timeout_sec

    def _silent(self, method: str) -> Unavailable:
        return Unavailable(
            "chain.unreachable",
            f"bitcoind at {self.address.url} takes connections and does not answer ({method}): it hangs or is "
            "overloaded; look at its debug.log, and restart it if it stays so",
        )

    async def _post(self, method: str, params: tuple[Any, ...], wallet: str | None) -> tuple[int, str]:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        if self._auth is None:
            self._auth = self.address.authorization()
        url = self.address.url.rstrip("/") + (
            f"/wallet/{quote(wallet, safe='')}" if wallet is not None else "/"
        )
        request = {"jsonrpc": "1.0", "id": 0, "method": method, "params": params}
        try:
            headers = {"Authorization": self._auth}
            limit = aiohttp.ClientTimeout(total=self._limit(method))
            async with self._session.post(url, json=request, headers=headers, timeout=limit) as response:
                answer = response.status, await response.text()
        except TimeoutError as error:
            self._hangs = True
            raise self._silent(method) from error
        except aiohttp.InvalidURL as error:
            raise UsageError("chain.address", f"{self.address.url} is no address of a bitcoind") from error
        except aiohttp.ClientError as error:
            raise Unavailable(
                "chain.unreachable",
                f"bitcoind does not answer at {self.address.url}: start it (bitcoind -server), or correct "
                "its address in the configuration",
            ) from error
        self._hangs = False
        return answer

    def _result(self, method: str, status: int, body: str) -> Any:
        if status in (401, 403):
            raise UsageError(
                "chain.credentials",
                f"bitcoind at {self.address.url} refuses our user and password (HTTP {status}): compare "
                "rpcauth, rpcuser and rpcallowip in its bitcoin.conf with the configuration here",
            )
        try:
            # Never through a float: 0.1 + 0.2 would not be 0.3, and this is money.
            answer = json.loads(body, parse_float=Decimal)
            error, result = answer["error"], answer["result"]
        except (ValueError, KeyError, TypeError) as problem:
            raise Unavailable(
                "chain.unreachable",
                f"what answers at {self.address.url} is not bitcoind, or is overloaded (HTTP {status})",
            ) from problem
        if error is None:
            return result
        if error["code"] == IN_WARMUP:
            raise Unavailable("chain.unreachable", f"bitcoind is still starting: {error['message']}")
        raise RpcError(method, error["code"], error["message"])


def sat(amount: Decimal | int) -> Sat:
    """Whole satoshis of an amount in BTC as bitcoind prints it. Raises ValueError for a fraction of one."""
    scaled = Decimal(amount) * COIN
    if scaled != (whole := int(scaled)):
        raise ValueError(f"{amount} BTC is not a whole number of satoshis")
    return Sat(whole)
