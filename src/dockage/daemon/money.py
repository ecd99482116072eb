"""Puts the rail of a node together, beside ``system.py``: whose chain and coins are behind it.

The rule: a node does not start with another wallet than its open channels were made with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from dockage.adapters.bitcoind.chain import BitcoindChain
from dockage.adapters.bitcoind.rpc import Rpc, RpcAddress
from dockage.adapters.bitcoind.wallet import BitcoindWallet
from dockage.adapters.keys.files import FileKeys
from dockage.adapters.secp.btclib import Secp
from dockage.adapters.secp.keys import ChannelKeys
from dockage.domain.errors import UsageError
from dockage.domain.identity import NodeKey
from dockage.node import records
from dockage.ports.machine import Clock, Row

from .config import Bitcoin
from .ground import Loop
from .node import Node
from .rail import Rail, Role


async def open_rail(
    home: Path, bitcoin: Bitcoin, keys: FileKeys, clock: Clock, stack: AsyncExitStack
) -> tuple[Rail | None, Callable[[Node], list[Loop]]]:
    """And what must run beside it, once there is a node."""
    curve = Secp()
    if not bitcoin.network:
        return None, _no_loops
    if bitcoin.wallet == "light":
        from . import light  # BDK is an extra, and takes a while to import

        client, chain, wallet = light.open_wallet(home, bitcoin, clock)
        rail = Rail(curve, ChannelKeys(client.seed.channels(), curve), chain, wallet, bitcoin.feerate_max)
        return rail, partial(light.loops, client)
    rpc = Rpc(_rpc_address(bitcoin), network=bitcoin.network)
    stack.push_async_callback(rpc.close)
    name = bitcoin.bitcoind_wallet
    seen = BitcoindChain(rpc, name, bitcoin.feerate_max)
    own = ChannelKeys(keys.seed, curve)
    return Rail(curve, own, seen, BitcoindWallet(rpc, name), bitcoin.feerate_max), _no_loops


def _no_loops(_: Node) -> list[Loop]:
    return []


def _rpc_address(bitcoin: Bitcoin) -> RpcAddress:
    cookie = Path(bitcoin.cookie).expanduser() if bitcoin.cookie else None
    return RpcAddress(bitcoin.url, bitcoin.user, bitcoin.password, cookie)


def refuse_foreign_channels(rail: Rail, rows: Sequence[Row], me: NodeKey) -> None:
    """With another wallet's seed we could neither close nor refund what is open: better not to start."""
    roles: dict[str, Role] = {records.PAYING: "tenant", records.EARNING: "provider"}
    open_ = [(roles[r.kind], records.decode_channel(r.value)) for r in rows if r.kind in roles]
    lost = [c for role, c in open_ if c.txid and not c.is_over and not rail.holds(role, c, me)]
    if lost:
        raise UsageError(
            "wallet.other-keys",
            f"{len(lost)} channels of this home (the first is {lost[0].id.hex()[:8]}) were opened with another wallet: "
            "set bitcoin.wallet back, or restore that wallet's words, until they are closed",
        )
