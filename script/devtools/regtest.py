"""A bitcoind on regtest in a container of one engine, and the few calls that move its world."""

from __future__ import annotations

import base64
import json
import secrets
import socket
import urllib.error
import urllib.request
from decimal import Decimal
from typing import Any

from devtools.shell import Failed, run, wait_until, works

IMAGE = "dockage/bitcoind:regtest"
START_SECONDS = 60
BURIED = 8
"""Blocks after which nobody waits for another: our nodes want six, and may count from where they last looked."""


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Regtest:
    """Call ``start`` and, whatever happens, ``stop``."""

    def __init__(self, docker_host: str) -> None:
        self._docker = ("docker", "--host", docker_host)
        self.name = f"dockage-regtest-{secrets.token_hex(4)}"
        self.port, self.user, self.password = free_port(), "dockage", secrets.token_hex(16)
        self._shallow = BURIED
        """So many more blocks bury all there is."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        options = (
            f"-rpcport={self.port}",
            f"-rpcuser={self.user}",
            f"-rpcpassword={self.password}",
            "-rpcbind=127.0.0.1",
            "-rpcallowip=127.0.0.1",
            "-listen=0",
            "-dnsseed=0",
            "-fallbackfee=0.00002",
            "-txindex=1",
        )
        # The host's network: wallets and this script talk to it on loopback, and it talks to nobody.
        run(
            *self._docker,
            "run",
            "--detach",
            "--rm",
            "--network=host",
            f"--name={self.name}",
            IMAGE,
            "-regtest",
            *options,
        )
        if not wait_until(self.answers, START_SECONDS):
            raise Failed(f"bitcoind did not answer within {START_SECONDS} s")
        self.call("createwallet", "miner")
        self.mine(101)

    def stop(self) -> None:
        works(*self._docker, "rm", "--force", "--volumes", self.name)

    def pause(self) -> None:
        run(*self._docker, "pause", self.name)

    def unpause(self) -> None:
        run(*self._docker, "unpause", self.name)

    def answers(self) -> bool:
        try:
            return self.call("getblockcount") is not None
        except (OSError, Failed):
            return False

    def call(self, method: str, *params: Any, wallet: str = "") -> Any:
        """The result; amounts are Decimals. Raises Failed with the node's own words."""
        path = f"/wallet/{wallet}" if wallet else ""
        body = json.dumps({"id": 0, "method": method, "params": params}, default=str).encode()
        request = urllib.request.Request(self.url + path, body)
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = response.read()
        except urllib.error.HTTPError as error:
            answer = error.read()
        decoded = json.loads(answer, parse_float=Decimal)
        if decoded["error"]:
            raise Failed(f"bitcoind {method}: {decoded['error']['message']}")
        return decoded["result"]

    def mine(self, blocks: int = 1) -> None:
        address = self.call("getnewaddress", "", "bech32m", wallet="miner")
        self.call("generatetoaddress", blocks, address)

    def mine_what_waits(self) -> None:
        """A block for what is in the mempool or not yet buried; otherwise nothing: each costs every wallet a look."""
        waiting = self.call("getmempoolinfo")["size"] > 0
        if waiting or self._shallow:
            self.mine()
        self._shallow = BURIED if waiting else max(0, self._shallow - 1)

    def give(self, address: str, sat: int) -> None:
        """Confirmed coins for *address*."""
        self.call("sendtoaddress", address, f"{Decimal(sat) / 10**8:.8f}", wallet="miner")
        self.mine()
        self._shallow = BURIED

    def balance(self, wallet: str) -> int:
        """Everything of *wallet* that is confirmed, in sat."""
        mine = self.call("getbalances", wallet=wallet)["mine"]
        return int(mine["trusted"] * 10**8)

    def config(self, wallet: str) -> str:
        """The ``[bitcoin]`` section for a node that uses *wallet* on this chain."""
        return (
            "[bitcoin]\n"
            'network = "regtest"\n'
            f'url = "{self.url}"\nuser = "{self.user}"\npassword = "{self.password}"\n'
            f'bitcoind_wallet = "{wallet}"\npoll_sec = 0.5\n'
        )
