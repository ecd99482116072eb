"""One BDK wallet and the light client that keeps it up to date: connects, follows the chain, starts again.

The client asks bitcoin nodes (peers) for compact filters, tests them here, and fetches only the blocks that concern
us: no peer learns which coins are ours. A client whose last peer is gone ends; ``run`` makes a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import bdkpython as bdk
import structlog

from dockage.domain.channel import BURIED
from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.units import SECOND
from dockage.ports.machine import Clock
from dockage.protocol.bitcoin.tx import Tx, parse
from dockage.wire.chainview import Known, View

from .seed import Birthday, SeedFile, read_birthday

log = structlog.get_logger("dockage.light")

COINS, CHAIN = "coins.db", "chain"
LOOKAHEAD = 100
"""Addresses watched past the last one that was used: so many may be handed out in vain between two that are paid."""
CONNECTIONS = 2
"""Peers that must agree; fewer if fewer are configured."""
TIMEOUT_MS = (10_000, 30_000)
"""For a peer's handshake and for an answer: a block is 2 MB, and some lines are slow."""
RETRY_SEC = (1.0, 30.0)
"""Pause before a client is made again, growing."""
ANNOUNCE_SEC = 20.0
"""A peer that wants a transaction asks for it within seconds; one that has it already never does."""
ANNOUNCED_MAX = 64
"""At once."""


class LightNode:
    """Call ``run`` in a task of its own; the rest answers from what it has seen so far."""

    def __init__(
        self,
        file: Path,
        peers: Sequence[str],
        clock: Clock,
        *,
        discover: bool = False,
        lookahead: int = LOOKAHEAD,
    ) -> None:
        """*file*: ``seed.json``; the wallet's other files lie beside it. *peers*: ``ip:port`` each; *discover*:
        take also those that bitcoin's own DNS seeds name. Raises UsageError("wallet.*")."""
        self._path, self._folder = file, file.parent
        self.file = SeedFile.load(file)
        self.seed = self.file.seed
        self.network = self.file.network
        self._peers = [_peer(text) for text in peers]
        if not self._peers and not discover:
            raise UsageError(
                "wallet.no-peers",
                "the light wallet needs a bitcoin node to ask: set bitcoin.peers (one that serves compact filters: "
                "-blockfilterindex -peerblockfilters), or bitcoin.discover = true to find some by bitcoin's DNS seeds",
            )
        self._discover, self._clock = discover, clock
        self._persister = bdk.Persister.new_sqlite(str(self._folder / COINS))
        self.wallet = self._open(lookahead)
        self._client: bdk.CbfClient | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._announcing: set[str] = set()
        self._parsed: dict[str, tuple[Tx, bytes]] = {}
        self._view: View | None = None
        self._trouble = "it has not connected yet"
        self.progress = 0
        """Percent of the filters that are read, while the wallet is behind the chain."""
        self.synced = asyncio.Event()
        """Set while a client is connected and has caught up."""

    def __repr__(self) -> str:
        return f"<LightNode {self.seed.fingerprint} on {self.network}, block {self.view.tip}>"

    # -- what was seen ---------------------------------------------------------------------------------
    @property
    def view(self) -> View:
        """Also without a connection: what the files hold."""
        if self._view is None:
            tip = self.wallet.latest_checkpoint().height
            self._view = View(tip, [self._known(one) for one in self.wallet.transactions()])
        return self._view

    def _known(self, one: bdk.CanonicalTx) -> tuple[str, Known]:
        txid = str(one.transaction.compute_txid())
        if txid not in self._parsed:
            raw = bytes(one.transaction.serialize())
            self._parsed[txid] = (parse(raw), raw)
        place = one.chain_position
        block = place.confirmation_block_time.block_id if place.is_confirmed() else None
        return txid, Known(*self._parsed[txid], block.height if block else None)

    @property
    def client(self) -> bdk.CbfClient:
        """Raises Unavailable("chain.unreachable" | "chain.syncing")."""
        if self._client is None or not self.synced.is_set():
            raise self.trouble()
        return self._client

    def trouble(self) -> Unavailable:
        if self._client is not None and not self._trouble:
            return Unavailable(
                "chain.syncing", f"the wallet is reading the chain: {self.progress} % of the filters so far"
            )
        return Unavailable("chain.unreachable", f"the light wallet has no bitcoin peer: {self._trouble}")

    # -- what we add -----------------------------------------------------------------------------------
    def remember(self, raw: bytes) -> None:
        """A transaction of ours is on its way: what it spends is spent. Peers do not show us what waits."""
        now = self._now()
        tx = bdk.Transaction(raw)
        rivals = [bdk.EvictedTx(txid=bdk.Txid.from_string(x), evicted_at=now) for x in self._rivals(raw)]
        self.wallet.apply_evicted_txs(rivals)
        self.wallet.apply_unconfirmed_txs([bdk.UnconfirmedTx(tx=tx, last_seen=now)])
        self.save()

    def _rivals(self, raw: bytes) -> set[str]:
        return self.view.conflicts(parse(raw))

    def announce(self, txid: str, raw: bytes) -> None:
        """Offer it to our peers, in the background. Raises Unavailable if there is none."""
        client = self.client
        assert self._tasks is not None
        if txid in self._announcing or len(self._announcing) >= ANNOUNCED_MAX:
            return
        self._announcing.add(txid)
        self._tasks.create_task(self._announce(client, txid, bdk.Transaction(raw)))

    async def _announce(self, client: bdk.CbfClient, txid: str, tx: bdk.Transaction) -> None:
        try:
            async with asyncio.timeout(ANNOUNCE_SEC):
                await client.broadcast(tx)
        except (TimeoutError, bdk.CbfError):
            pass  # they have it already, or are gone; whoever wants it on the chain asks again
        finally:
            self._announcing.discard(txid)

    def save(self) -> None:
        """What the wallet learnt is on disk when this returns."""
        self._view = None
        self.wallet.persist(self._persister)

    def _now(self) -> int:
        return self._clock.now() // SECOND

    # -- the client ------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Until cancelled."""
        pause, longest = RETRY_SEC
        async with asyncio.TaskGroup() as self._tasks:
            try:
                while True:
                    had_synced = await self._session()
                    pause = RETRY_SEC[0] if had_synced else min(2 * pause, longest)
                    log.warning("light.disconnected", why=self._trouble, retry_sec=pause)
                    await asyncio.sleep(pause)
            finally:
                self._tasks = None

    async def _session(self) -> bool:
        """From one client's start to its end; whether it ever caught up."""
        parts = await asyncio.to_thread(self._build)
        client = self._client = parts.client
        self._trouble = ""
        parts.node.run()
        caught_up = False
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_until_stopped(self._listen(client)))
                tasks.create_task(_until_stopped(self._heed(client)))
                tasks.create_task(_until_stopped(self._follow(client)))
        finally:
            caught_up = self.synced.is_set()
            self.synced.clear()
            self._client = None
            self._trouble = self._trouble or self._hung_up(caught_up)
            with contextlib.suppress(bdk.CbfError):
                client.shutdown()
        return caught_up

    def _hung_up(self, caught_up: bool) -> str:
        if caught_up:
            return "the last connection was lost"
        return f"every peer hung up: are they on {self.network}, and serve compact filters (-peerblockfilters=1)?"

    def _build(self) -> bdk.CbfComponents:
        folder = self._folder / CHAIN
        folder.mkdir(mode=0o700, exist_ok=True)
        count = CONNECTIONS if self._discover else min(CONNECTIONS, len(self._peers))
        builder = bdk.CbfBuilder().connections(count).data_dir(str(folder)).scan_type(self._scan())
        builder = builder.configure_timeout_millis(*TIMEOUT_MS)
        if self._peers:
            builder = builder.peers(self._peers)
        return (builder if self._discover else builder.only_configured_peers()).build(self.wallet)

    def _scan(self) -> bdk.ScanType:
        """From the birthday as long as nothing was ever scanned; afterwards from where we were."""
        if self.wallet.latest_checkpoint().height > 0:
            return bdk.ScanType.SYNC()
        birthday = read_birthday(self.file.birthday)
        return bdk.ScanType.RECOVERY(LOOKAHEAD, _point(birthday, self.network))

    async def _follow(self, client: bdk.CbfClient) -> None:
        while True:
            update = await client.update()
            await asyncio.to_thread(self.wallet.apply_update, update)
            self.save()
            self._trouble, self.progress = "", 100
            self._settle_birthday()
            self.synced.set()

    def _settle_birthday(self) -> None:
        """What was made here cannot have been paid before it was made. A few blocks before: the newest ones may yet be
        reorganised away, and a scan from the very tip on only ends with the next block."""
        if self.file.is_new:
            buried = self.wallet.latest_checkpoint().height - BURIED
            known = [x for x in self.wallet.checkpoints() if 0 < x.height <= buried]
            newest = max(known, key=lambda x: int(x.height), default=None)
            birthday = str(Birthday(newest.height, str(newest.hash))) if newest else self.file.birthday
            self.file = SeedFile(self.file.words, self.network, birthday)
            self.file.save(self._path)

    async def _listen(self, client: bdk.CbfClient) -> None:
        while True:
            info = await client.next_info()
            if info.is_progress():
                self.progress = int(info.filters_downloaded_percent)

    async def _heed(self, client: bdk.CbfClient) -> None:
        while True:
            said = _explain(await client.next_warning(), self.network)
            if said:
                self._trouble = said

    def _open(self, lookahead: int) -> bdk.Wallet:
        """Raises UsageError("wallet.other-seed") if the coins' file was made from other words."""
        receiving, change = self.seed.descriptors()
        network = self.seed.bdk_network
        try:
            if not (self._folder / COINS).stat().st_size:
                return bdk.Wallet(receiving, change, network, self._persister, lookahead)
            return bdk.Wallet.load(receiving, change, self._persister, lookahead)
        except (bdk.LoadWithPersistError.CouldNotLoad, bdk.CreateWithPersistError.DataAlreadyExists):
            return bdk.Wallet(receiving, change, network, self._persister, lookahead)
        except (bdk.LoadWithPersistError, bdk.CreateWithPersistError) as error:
            raise UsageError(
                "wallet.other-seed",
                f"{self._folder / COINS} does not belong to the words in {self._path} ({error}): put the right words "
                "back, or move that file away to scan the chain again",
            ) from None


async def _until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """The client ends all three loops at once, by this error."""
    with contextlib.suppress(bdk.CbfError.NodeStopped):
        await work


def _explain(warning: bdk.Warning, network: str) -> str:
    """One sentence for what our user can do something about; "" for the rest."""
    if warning.is_could_not_connect():
        return "nobody answers at bitcoin.peers: is the node running, and is it its P2P port, not its RPC?"
    if warning.is_peer_timed_out():
        return f"a peer does not answer in time: is it a bitcoin node, and on {network}?"
    if warning.is_no_compact_filters():
        return "a peer serves no compact filters: start it with -blockfilterindex=1 -peerblockfilters=1"
    if warning.is_unexpected_sync_error():
        if "does not connect" in warning.warning:
            return f"the peers' chain does not hold the wallet's birthday: it is wrong, or not of {network}"
        return str(warning.warning)
    return ""


def _point(birthday: Birthday, network: str) -> bdk.RecoveryPoint:
    if birthday.height:
        block = bdk.BlockId(height=birthday.height, hash=bdk.BlockHash.from_string(birthday.hash))
        return bdk.RecoveryPoint.OTHER(block)
    if network == "main":  # before it no taproot coin can be ours
        return bdk.RecoveryPoint.TAPROOT_ACTIVATION()
    return bdk.RecoveryPoint.GENESIS_BLOCK()


def _peer(text: str) -> bdk.Peer:
    """Raises UsageError("config.invalid")."""
    host, _, port = text.rpartition(":")
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port)
    except ValueError:
        raise UsageError("config.invalid", f"{text!r} in bitcoin.peers is not ip:port") from None
    octets = address.packed
    if address.version == 4:
        where = bdk.IpAddress.from_ipv4(*octets)
    else:
        where = bdk.IpAddress.from_ipv6(*(octets[i] << 8 | octets[i + 1] for i in range(0, 16, 2)))
    return bdk.Peer(address=where, port=number, v2_transport=False)
