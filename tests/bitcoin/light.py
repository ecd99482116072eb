"""Light clients whose only peer is the tests' bitcoind: ``testing.chain.ChainWorld`` on compact block filters."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from bitcoin.node import Node
from dockage.adapters.bdk import LightChain, LightNode, LightWallet, Seed, SeedFile
from dockage.adapters.system.clock import SystemClock
from dockage.domain.units import Sat
from dockage.ports.chain import Chain, Wallet

LOOKAHEAD = 10
"""Addresses take a millisecond each."""
PATIENCE_SEC = 60.0


def new_wallet(folder: Path, network: str = "regtest", birthday: str = "0") -> Path:
    path = folder / "seed.json"
    SeedFile(Seed.new(network).words, network, birthday).save(path)
    return path


class Light:
    """One light client: node, chain and wallet."""

    def __init__(self, file: Path, *peers: str) -> None:
        self.folder = file.parent
        self.node = LightNode(file, peers, SystemClock(), lookahead=LOOKAHEAD)
        self.chain = LightChain(self.node)
        self.wallet = LightWallet(self.node, self.chain)

    async def follow(self, node: Node) -> None:
        """Until it sees what *node* sees."""
        height, block = node.rpc("getblockcount"), node.rpc("getbestblockhash")
        await until(lambda: self.node.synced.is_set() and self.sees(height, block))

    def sees(self, height: int, block: str) -> bool:
        return self.node.view.tip == height and str(self.node.wallet.latest_checkpoint().hash) == block


async def until(condition: Callable[[], Any], seconds: float = PATIENCE_SEC) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the world here is another process
            await asyncio.sleep(0.01)


class LightWorld:
    """Its ``chain`` is that of the first wallet; the others have their own."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node, self._folder = node, folder
        self._given = 0
        self.lights: list[Light] = []
        self._tasks = asyncio.TaskGroup()
        self._running: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        await self.light()
        return self

    async def __aexit__(self, *error: Any) -> None:
        for task in self._running:
            task.cancel()
        await self._tasks.__aexit__(*error)

    async def light(self, file: Path | None = None) -> Light:
        """A client that has caught up."""
        light = Light(file or new_wallet(self._folder / str(len(self.lights))), self.node.peer)
        self.lights.append(light)
        self._running.append(self._tasks.create_task(light.node.run()))
        await light.follow(self.node)
        return light

    async def lose(self, light: Light) -> None:
        """Its machine is gone, with all files."""
        at = self.lights.index(light)
        self.lights.pop(at)
        task = self._running.pop(at)
        task.cancel()
        await asyncio.wait([task])
        shutil.rmtree(light.folder)

    # -- ChainWorld ------------------------------------------------------------------------------------
    @property
    def chain(self) -> Chain:
        return self.lights[0].chain

    async def wallet(self, *coins: Sat) -> Wallet:
        if self._given == len(self.lights):
            await self.light()
        light = self.lights[self._given]
        self._given += 1
        if coins:
            self.node.give(await light.wallet.receive(), *coins)
            await self._follow()
        return light.wallet

    async def mine(self, blocks: int) -> None:
        """One by one: several in the same moment are more than a client takes; it drops its peer and starts again."""
        await self.relayed()
        for _ in range(blocks):
            self.node.mine()
            await self._follow()

    async def reorganise(self, depth: int) -> None:
        await self.relayed()
        self.node.reorganise(depth)
        await self._follow()

    async def _follow(self) -> None:
        for light in self.lights:
            await light.follow(self.node)

    async def relayed(self) -> None:
        """Until bitcoind has taken what our clients announced. It asks a light peer only after two seconds: its
        clock is put forward for that long."""
        now = int(time.time())
        with self._mocked_time():
            while not self._is_relayed():
                now += 1
                self.node.rpc("setmocktime", now)
                await asyncio.sleep(0.05)

    @contextlib.contextmanager
    def _mocked_time(self) -> Any:
        try:
            yield
        finally:
            self.node.rpc("setmocktime", 0)

    def _is_relayed(self) -> bool:
        pool = set(self.node.rpc("getrawmempool"))
        waiting = {
            txid for light in self.lights for txid, x in light.node.view.txs.items() if x.height is None
        }
        return waiting <= pool


__all__ = ["Light", "LightWorld", "new_wallet", "until"]
