"""A bitcoind on regtest for the tests, in docker or from an unpacked folder.

In docker: the engine at ``DOCKAGE_TEST_DOCKER_HOST``, or at the socket ``DOCKAGE_TEST_PROVIDER_ENGINE`` that
``script/test`` sets, with the image ``dockage/bitcoind:regtest``. Unpacked: ``DOCKAGE_BITCOIND`` names the program,
or a folder with its whole root file system. Without either, the tests that need a node are skipped.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dockage.adapters.bitcoind import BitcoindChain, BitcoindWallet, Rpc, RpcAddress
from dockage.domain.units import Sat
from dockage.ports.chain import Wallet

IMAGE = os.environ.get("DOCKAGE_TEST_BITCOIND_IMAGE", "dockage/bitcoind:regtest")
START_SEC = 60
MINER = "miner"


class NodeRefused(Exception):
    """The node's own answer to a test's call."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Node:
    """One running bitcoind. Its calls block: tests use them to move the world, not to test anything."""

    def __init__(self, port: int, user: str, password: str, p2p_port: int = 0) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.peer = f"127.0.0.1:{p2p_port}"
        """Where light clients ask it."""
        self.user = user
        self.password = password
        self._wallet = ""

    @property
    def address(self) -> RpcAddress:
        return RpcAddress(self.url, self.user, self.password)

    def rpc(self, method: str, *params: Any) -> Any:
        """The result; amounts are Decimals. Raises NodeRefused."""
        body = json.dumps({"id": 0, "method": method, "params": params}, default=str).encode()
        request = urllib.request.Request(self.url + self._wallet, body)
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                answer = response.read()
        except urllib.error.HTTPError as error:
            with error:
                answer = error.read()
        decoded = json.loads(answer, parse_float=Decimal)
        if decoded["error"]:
            raise NodeRefused(decoded["error"]["code"], decoded["error"]["message"])
        return decoded["result"]

    def wallet(self, name: str) -> Node:
        """The same node, speaking for the wallet *name* (which is made if it is missing)."""
        if name not in self.rpc("listwallets"):
            self.rpc("createwallet", name)
        other = Node(0, self.user, self.password)
        other.url, other._wallet = self.url, f"/wallet/{name}"
        return other

    def mine(self, blocks: int = 1) -> None:
        address = self.wallet(MINER).rpc("getnewaddress", "", "bech32m")
        self.rpc("generatetoaddress", blocks, address)

    def give(self, address: str, *amounts: int) -> None:
        """Confirmed coins of *amounts* sat for *address*, in one block."""
        miner = self.wallet(MINER)
        for amount in amounts:
            miner.rpc("sendtoaddress", address, f"{Decimal(amount) / 10**8:.8f}")
        self.mine()

    def reorganise(self, depth: int) -> None:
        """Replace the last *depth* blocks by ``depth + 1`` empty ones."""
        height = self.rpc("getblockcount")
        self.rpc("invalidateblock", self.rpc("getblockhash", height - depth + 1))
        address = self.wallet(MINER).rpc("getnewaddress", "", "bech32m")
        for _ in range(depth + 1):
            self.rpc("generateblock", address, [])

    def allows(self, raw: bytes) -> str:
        """Empty if the mempool would take *raw*, else its reason."""
        (answer,) = self.rpc("testmempoolaccept", [raw.hex()])
        return "" if answer["allowed"] else str(answer["reject-reason"])


class RegtestWorld:
    """``testing.chain.ChainWorld`` on a real node."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._rpc = Rpc(node.address)
        self.chain = BitcoindChain(self._rpc)
        self._wallets: list[str] = []

    async def wallet(self, *coins: Sat) -> Wallet:
        wallet = BitcoindWallet(self._rpc, f"test-{secrets.token_hex(6)}")
        self._wallets.append(wallet.name)
        address = await wallet.receive()
        if coins:
            self.node.give(address, *coins)
        return wallet

    async def mine(self, blocks: int) -> None:
        if blocks:
            self.node.mine(blocks)

    async def reorganise(self, depth: int) -> None:
        self.node.reorganise(depth)

    async def close(self) -> None:
        """The wallets go too: every one that is loaded makes each block slower."""
        try:
            for name in self._wallets:
                self.node.rpc("unloadwallet", name, False)
        finally:
            await self._rpc.close()


# -- starting and stopping -----------------------------------------------------------------------------
@contextlib.contextmanager
def running(
    tmp_path_factory: pytest.TempPathFactory, *, filters: bool = True, blocks: int = 101
) -> Iterator[Node]:
    """With *blocks* blocks and, at 101, a rich miner; *filters*: it serves light clients. The fixture ``bitcoind``
    (tests/conftest.py) runs one for the session."""
    docker_host, unpacked = _docker_host(), os.environ.get("DOCKAGE_BITCOIND")
    port, p2p_port, user, password = _free_port(), _free_port(), "test", secrets.token_hex(16)
    options = _options(port, p2p_port, user, password)
    options += ["-blockfilterindex=1", "-peerblockfilters=1"] if filters else []
    if docker_host:
        program = _in_docker(docker_host, options)
    elif unpacked:
        program = _unpacked(Path(unpacked), tmp_path_factory.mktemp("bitcoind"), options)
    else:
        pytest.skip("no bitcoind: set DOCKAGE_TEST_DOCKER_HOST or DOCKAGE_BITCOIND")
    with program:
        node = Node(port, user, password, p2p_port)
        _wait_until_up(node)
        node.mine(blocks)
        yield node


def _docker_host() -> str:
    socket_path = os.environ.get("DOCKAGE_TEST_PROVIDER_ENGINE", "")
    return os.environ.get("DOCKAGE_TEST_DOCKER_HOST") or (socket_path and f"unix://{socket_path}")


def _options(port: int, p2p_port: int, user: str, password: str) -> list[str]:
    return [
        "-regtest",
        "-server",
        # For light clients on this machine; it calls nobody itself.
        "-listen=1",
        f"-bind=127.0.0.1:{p2p_port}",
        "-connect=0",
        "-listenonion=0",
        "-dnsseed=0",
        "-discover=0",
        "-keypool=4",  # a wallet makes 8,000 keys otherwise
        "-fallbackfee=0.00002",
        "-mempooltruc=enforce",  # as Core does; Knots would only accept version 3
        f"-rpcuser={user}",
        f"-rpcpassword={password}",
        f"-rpcport={port}",
    ]


@contextlib.contextmanager
def _in_docker(host: str, options: list[str]) -> Iterator[None]:
    import docker

    client = docker.DockerClient(base_url=host, timeout=60)
    try:
        # The host's network: nothing is published, so no firewall rule is left behind.
        try:
            container = client.containers.run(
                IMAGE, options, detach=True, network_mode="host", labels={"dockage.test": "bitcoind"}
            )
        except docker.errors.ImageNotFound:
            pytest.skip(f"no bitcoind: the engine at {host} has no image {IMAGE}")
        try:
            yield
        finally:
            container.remove(force=True, v=True)
    finally:
        client.close()


@contextlib.contextmanager
def _unpacked(place: Path, data: Path, options: list[str]) -> Iterator[None]:
    process = subprocess.Popen(
        [*_program(place), f"-datadir={data}", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _program(place: Path) -> list[str]:
    if place.is_file():
        return [str(place)]
    libraries = ":".join(str(folder) for folder in (*place.glob("usr/lib/*-linux-gnu"), place / "usr/lib"))
    loader = next(place.glob("usr/lib64/ld-linux-*.so.*"), None) or next(
        place.glob("usr/lib/ld-linux-*.so.*")
    )
    return [str(loader), "--library-path", libraries, str(place / "usr/bin/bitcoind")]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_up(node: Node) -> None:
    deadline = time.monotonic() + START_SEC
    while True:
        try:
            node.rpc("getblockcount")
            return
        except (OSError, NodeRefused, ValueError) as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"bitcoind did not come up in {START_SEC} s: {error}") from error
            time.sleep(0.05)
