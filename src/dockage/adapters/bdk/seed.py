"""The twelve words (BIP39) from which a light wallet and the keys of its channels follow, and their file.

    coins      BIP86 (taproot), account 0: every wallet that knows the words finds them
    channels   m/6262'/coin': a seed of 32 bytes, from which each channel's key follows with its id

The words and the birthday are the whole backup of the coins. Whoever reads the file has them.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import bdkpython as bdk
import msgspec

from dockage.domain.errors import UsageError

NETWORKS = {
    "main": bdk.Network.BITCOIN,
    "test": bdk.Network.TESTNET,
    "testnet4": bdk.Network.TESTNET4,
    "signet": bdk.Network.SIGNET,
    "regtest": bdk.Network.REGTEST,
}
"""By the network's name as ``Chain.network`` says it."""
CHANNELS = "m/6262h/{coin}h"


class Birthday(NamedTuple):
    """A block before which the wallet has no coin: where its scan begins. Height 0 is the genesis block."""

    height: int
    hash: str = ""

    def __str__(self) -> str:
        return f"{self.height}:{self.hash}" if self.height else "0"


NEWEST = {
    "main": Birthday(935_000, "0000000000000000000147034958af1652b2b91bba607beacc5e72a56f0fb5ee"),
    "test": Birthday(2_500_000, "0000000000000093bcb68c03a9a168ae252572d348a2eaeba2cdf9231d73206f"),
    "testnet4": Birthday(120_000, "000000000bd2317e51b3c5794981c35ba894ce27d3e772d5c39ecd9cbce01dc8"),
    "signet": Birthday(290_000, "0000000577f2741bb30cd9d39d6d71b023afbeb9764f6260786a97969d5c9ac0"),
}
"""The newest block that we know of each network, where a new wallet begins. From the assumeutxo table in Bitcoin
Core's kernel/chainparams.cpp, so that others have verified them. A release should bring newer ones."""


def read_birthday(text: str) -> Birthday:
    """``HEIGHT:HASH`` as the backup shows it, or ``0``. Raises UsageError("wallet.birthday")."""
    height, colon, block = text.strip().partition(":")
    is_hash = len(block) == 64 and all(c in "0123456789abcdef" for c in block)
    if text.strip() == "0":
        return Birthday(0)
    if not (height.isdecimal() and int(height) < 500_000_000 and colon and is_hash):
        raise UsageError(
            "wallet.birthday",
            f"{text!r} is not a birthday: HEIGHT:HASH of a block is, as the backup shows it, or 0 to look "
            "through the whole chain",
        )
    return Birthday(int(height), block)


class Seed:
    """Twelve words on one network. ``repr`` does not show them."""

    def __init__(self, words: str, network: str) -> None:
        """Raises UsageError("wallet.words") if *words* are not 12 to 24 BIP39 words with a right checksum."""
        try:
            self._mnemonic = bdk.Mnemonic.from_string(" ".join(words.lower().split()))
        except bdk.Bip39Error as error:
            raise UsageError("wallet.words", _what_is_wrong(error)) from None
        self.network = network
        self._kind = bdk.NetworkKind.MAIN if network == "main" else bdk.NetworkKind.TEST
        self._key = bdk.DescriptorSecretKey(self._kind, self._mnemonic, None)

    @classmethod
    def new(cls, network: str) -> Seed:
        """From the system's randomness."""
        return cls(str(bdk.Mnemonic(bdk.WordCount.WORDS12)), network)

    def __repr__(self) -> str:
        return f"<Seed {self.fingerprint} on {self.network}>"

    @property
    def words(self) -> str:
        return str(self._mnemonic)

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that tell two seeds apart and say nothing else."""
        return sha256(b"dockage/seed-name" + self.channels()).hexdigest()[:8]

    @property
    def bdk_network(self) -> bdk.Network:
        return NETWORKS[self.network]

    def descriptors(self) -> tuple[bdk.Descriptor, bdk.Descriptor]:
        """Receiving and change (BIP86)."""
        return (
            bdk.Descriptor.new_bip86(self._key, bdk.KeychainKind.EXTERNAL, self._kind),
            bdk.Descriptor.new_bip86(self._key, bdk.KeychainKind.INTERNAL, self._kind),
        )

    def channels(self) -> bytes:
        """The 32-byte seed of the channels' keys (``adapters/secp/keys.py``)."""
        coin = 0 if self.network == "main" else 1  # SLIP44, as in BIP86's own path
        path = bdk.DerivationPath(CHANNELS.format(coin=coin))
        return bytes(self._key.derive(path).secret_bytes())


def _what_is_wrong(error: bdk.Bip39Error) -> str:
    match error:
        case bdk.Bip39Error.BadWordCount(word_count=count):
            return f"these are {count} words: a wallet has 12 (or 15, 18, 21, 24)"
        case bdk.Bip39Error.UnknownWord(index=index):
            return f"word {index + 1} is not in the list of BIP39: check its spelling"
        case bdk.Bip39Error.InvalidChecksum():
            return "the words do not belong together: one is wrong, or two have changed places"
        case _:
            return "these are not the words of a wallet (BIP39, English)"


class SeedFile(msgspec.Struct, frozen=True):
    """What stands in ``<home>/wallet/seed.json``."""

    words: str
    network: str
    birthday: str
    """``HEIGHT:HASH``."""
    is_new: bool = False
    """Made here and never scanned: its birthday moves up to the first tip that it sees."""

    @classmethod
    def load(cls, path: Path) -> SeedFile:
        """Raises UsageError("wallet.missing" | "wallet.exposed" | "wallet.damaged")."""
        try:
            if path.stat().st_mode & 0o077:
                raise UsageError("wallet.exposed", f"{path} can be read by others; run: chmod 600 {path}")
            file = msgspec.json.decode(path.read_bytes(), type=cls)
            Seed(file.words, file.network)
            read_birthday(file.birthday)
        except FileNotFoundError:
            raise UsageError(
                "wallet.missing",
                "there is no light wallet in this home yet: make one with `dockage wallet new`, or bring one "
                "back with `dockage wallet restore`",
            ) from None
        except (msgspec.DecodeError, KeyError, OSError) as error:
            raise UsageError(
                "wallet.damaged", f"{path} cannot be read ({error}): restore the wallet from its words"
            ) from None
        return file

    @property
    def seed(self) -> Seed:
        return Seed(self.words, self.network)

    def save(self, path: Path) -> None:
        """Durably, readable by the owner alone; the old one stays until the new one is whole."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
