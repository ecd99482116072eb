"""The light wallet of a home: made, brought back, backed up, put together. Apart from ``system.py`` because BDK is an
extra: this module is imported only where somebody wants such a wallet.

    <home>/wallet/seed.json      the words and the birthday; nothing else is needed for the coins
    <home>/wallet/channels.txt   a note for each channel of ours; not secret, needed for refunds
    <home>/wallet/coins.db, chain/   what was seen; can be made again
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from dockage.domain.channel import Channel
from dockage.domain.errors import UsageError
from dockage.node import records
from dockage.ports.machine import Clock, Row
from dockage.protocol.channel_note import decode_note, encode_note

try:
    from dockage.adapters.bdk import LightChain, LightNode, LightWallet, Seed, SeedFile, read_birthday
    from dockage.adapters.bdk.node import CHAIN, COINS
    from dockage.adapters.bdk.seed import NEWEST
except ImportError as error:  # pragma: no cover - all tests have the extra
    raise UsageError(
        "wallet.extra", f"the light wallet needs the extra `wallet`: pip install 'dockage[wallet]' ({error})"
    ) from None

from dockage.adapters.secp.btclib import Secp
from dockage.adapters.secp.keys import ChannelKeys
from dockage.adapters.sqlite.journal import SqliteJournal

from .config import CHAIN_NAMES, Bitcoin, user_name
from .ground import Loop
from .home import locked
from .loading import load
from .node import Node
from .saving import written_network
from .tasks import every

NOTES_EVERY = 5.0
FOLDER = "wallet"
SEED = "seed.json"
NOTES = "channels.txt"
JOURNAL = "state.db"


class Backup(NamedTuple):
    words: str
    network: str
    birthday: str
    notes: tuple[str, ...]
    """One line a channel of ours that is not over."""


def seed_path(home: Path) -> Path:
    return home / FOLDER / SEED


def open_wallet(home: Path, bitcoin: Bitcoin, clock: Clock) -> tuple[LightNode, LightChain, LightWallet]:
    """Raises UsageError("wallet.*")."""
    node = LightNode(seed_path(home), bitcoin.peers, clock, discover=bitcoin.discover)
    if node.network != bitcoin.network:
        raise UsageError(
            "wallet.wrong-network",
            f"the wallet in {home / FOLDER} is for {node.network}, the configuration says {bitcoin.network}: "
            "correct bitcoin.network, or use another --home",
        )
    chain = LightChain(node, bitcoin.feerate_max)
    return node, chain, LightWallet(node, chain)


def loops(client: LightNode, node: Node) -> list[Loop]:
    """What must run while the node lives."""

    async def note() -> None:
        channels = list(node.tenant.state.channels.values())
        await asyncio.to_thread(write_notes, node.home, channels)

    return [client.run, lambda: every(NOTES_EVERY, note, "channel-notes")]


# -- new, restore, backup: without a daemon --------------------------------------------------------------
def network_for(home: Path, wanted: str, *, mainnet: bool) -> str:
    """The chain's name that a new wallet is for. *wanted*: as our user says it, "" for that of the configuration;
    *mainnet*: our user insists. Raises UsageError("wallet.which-network" | "wallet.wrong-network" | "config.*")."""
    said = {"network": wanted} if wanted else {}
    insists = {"i_understand_mainnet_is_experimental": True} if mainnet else {}
    config = load(home, {"bitcoin": {**said, **insists}})
    written = written_network(home)
    if not config.bitcoin.network:
        raise UsageError(
            "wallet.which-network", f"say for which network: --network {' | '.join(CHAIN_NAMES)}"
        )
    if written not in ("", config.bitcoin.network):
        raise UsageError(
            "wallet.wrong-network",
            f"the configuration says {user_name(written)}: correct bitcoin.network, or use another --home",
        )
    return config.bitcoin.network


def make(home: Path, network: str, birthday: str = "") -> Backup:
    """Twelve new words. Raises UsageError("wallet.exists") rather than lose others."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_other(home, "")
    file = SeedFile(
        Seed.new(network).words,
        network,
        str(read_birthday(birthday)) if birthday else str(NEWEST.get(network, 0)),
        is_new=True,
    )
    file.save(seed_path(home))
    return Backup(file.words, network, file.birthday, ())


def restore(home: Path, network: str, words: str, birthday: str, notes: Sequence[str] = ()) -> Backup:
    """The wallet of *words*, and the channels of *notes*. What was seen of the chain is forgotten, so it is read again
    from *birthday* on ("": from the first block that matters). Raises UsageError and changes nothing."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    seed, born = Seed(words, network), read_birthday(birthday or "0")
    _refuse_other(home, seed.words)
    channels = [decode_note(line) for line in notes if line.strip()]
    _check_keys(seed, channels)
    with locked(home):
        SeedFile(seed.words, network, str(born)).save(seed_path(home))
        (home / FOLDER / COINS).unlink(missing_ok=True)
        shutil.rmtree(home / FOLDER / CHAIN, ignore_errors=True)
        _bring_back(home, channels)
    return Backup(seed.words, network, str(born), tuple(map(encode_note, channels)))


def _bring_back(home: Path, channels: Sequence[Channel]) -> None:
    """Those that the journal does not know; what it knows is newer than any note."""
    journal = SqliteJournal(home / JOURNAL)
    try:
        known = {row.key for row in journal.load(only=[records.PAYING])}
        rows = [Row(records.PAYING, bytes(c.id), records.encode_channel(c)) for c in channels]
        journal.write([row for row in rows if row.key not in known])
    finally:
        journal.close()


def backup(home: Path) -> Backup:
    """May be called while the daemon runs. Raises UsageError("wallet.missing")."""
    file = SeedFile.load(seed_path(home))
    journal = SqliteJournal(home / JOURNAL)
    try:
        channels = [records.decode_channel(row.value) for row in journal.load(only=[records.PAYING])]
    finally:
        journal.close()
    return Backup(file.words, file.network, file.birthday, notes_of(channels))


def notes_of(channels: Iterable[Channel]) -> tuple[str, ...]:
    return tuple(encode_note(c) for c in channels if c.txid and not c.is_over)


def write_notes(home: Path, channels: Iterable[Channel]) -> None:
    """To a file that may be copied anywhere: without the words it is worth nothing to anybody."""
    path, text = home / FOLDER / NOTES, "".join(f"{line}\n" for line in notes_of(channels))
    if not path.exists() or path.read_text() != text:
        part = path.with_name(path.name + ".part")
        part.write_text(text)
        part.replace(path)


def _refuse_other(home: Path, words: str) -> None:
    """There is one already; the same words once more are a new scan."""
    path = seed_path(home)
    if path.exists() and SeedFile.load(path).seed.words != words:
        raise UsageError(
            "wallet.exists",
            f"there is a wallet in {path.parent} already: use another --home, or move that folder to a safe place",
        )


def _check_keys(seed: Seed, channels: Sequence[Channel]) -> None:
    keys = ChannelKeys(seed.channels(), Secp())
    for channel in channels:
        if keys.public("tenant", channel.id) != channel.terms.tenant_key:
            raise UsageError(
                "wallet.other-keys",
                f"the note of channel {channel.id.hex()[:8]} belongs to other words: nothing was restored",
            )
