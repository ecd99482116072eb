"""Bitcoin transactions: only what a payment channel needs (BIP144 serialisation, BIP141 weight).

Built here, never taken from a peer. ``parse`` is for what our own node hands us, and is bounded all the same.
"""

from __future__ import annotations

from typing import NamedTuple

from dockage.domain.errors import PeerError

from .hashes import sha_twice

SIZE_MAX = 400_000
"""Bytes. Consensus allows 4 MB, relay policy 400 kvB weight: nothing of ours comes near either."""

SEQUENCE_RBF = 0xFFFFFFFD
"""Replaceable (BIP125) and lock time enabled."""

OutpointLike = tuple[str, int]
"""(txid in display order, output index); ``ports.chain.Outpoint`` is one."""


def compact(n: int) -> bytes:
    """Bitcoin's CompactSize."""
    if n < 0xFD:
        return n.to_bytes(1, "little")
    if n <= 0xFFFF:
        return b"\xfd" + n.to_bytes(2, "little")
    return b"\xfe" + n.to_bytes(4, "little")


def sized(data: bytes) -> bytes:
    return compact(len(data)) + data


def outpoint_bytes(outpoint: OutpointLike) -> bytes:
    txid, vout = outpoint
    return bytes.fromhex(txid)[::-1] + vout.to_bytes(4, "little")


class TxIn(NamedTuple):
    txid: str
    """Display order."""
    vout: int
    sequence: int = SEQUENCE_RBF
    script_sig: bytes = b""
    """Empty in all we build: everything we spend is segwit."""

    @property
    def outpoint(self) -> bytes:
        return outpoint_bytes((self.txid, self.vout))

    def encode(self) -> bytes:
        return self.outpoint + sized(self.script_sig) + self.sequence.to_bytes(4, "little")


class TxOut(NamedTuple):
    value: int
    """sat"""
    script: bytes
    """scriptPubKey"""

    def encode(self) -> bytes:
        return self.value.to_bytes(8, "little") + sized(self.script)


Witness = tuple[bytes, ...]


class Tx(NamedTuple):
    version: int
    inputs: tuple[TxIn, ...]
    outputs: tuple[TxOut, ...]
    locktime: int = 0
    witnesses: tuple[Witness, ...] = ()
    """One stack an input, or none at all while unsigned."""

    def _core(self) -> bytes:
        return b"".join(
            (
                compact(len(self.inputs)),
                *(i.encode() for i in self.inputs),
                compact(len(self.outputs)),
                *(o.encode() for o in self.outputs),
            )
        )

    def encode(self) -> bytes:
        """What is broadcast: with witnesses if there are any."""
        if not any(self.witnesses):
            return self._bare()
        return b"".join(
            (
                self.version.to_bytes(4, "little"),
                b"\0\1",
                self._core(),
                *(compact(len(w)) + b"".join(map(sized, w)) for w in self.witnesses),
                self.locktime.to_bytes(4, "little"),
            )
        )

    def _bare(self) -> bytes:
        return self.version.to_bytes(4, "little") + self._core() + self.locktime.to_bytes(4, "little")

    @property
    def txid(self) -> str:
        return sha_twice(self._bare())[::-1].hex()

    @property
    def weight(self) -> int:
        """BIP141 weight units."""
        return 3 * len(self._bare()) + len(self.encode())

    @property
    def vsize(self) -> int:
        return (self.weight + 3) // 4

    def find(self, script: bytes, value: int) -> int | None:
        """The index of the first output that pays exactly *value* to *script*."""
        wanted = TxOut(value, script)
        return next((n for n, out in enumerate(self.outputs) if out == wanted), None)


def fee_for(vsize: int, feerate: int) -> int:
    """sat, for *feerate* sat per 1000 vB, rounded up: a node refuses what is one short."""
    return -(-vsize * feerate // 1000)


class _Reader:
    """Each item takes at least one byte, so no announced count costs more than the transaction is long."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        piece = self.data[self.at : self.at + size]
        if len(piece) != size:
            raise _malformed("it ends too early")
        self.at += size
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def compact(self) -> int:
        first = self.number(1)
        return first if first < 0xFD else self.number(1 << (first - 0xFC))

    def sized(self) -> bytes:
        return self.take(self.compact())


def parse(raw: bytes) -> Tx:
    """Raises PeerError("tx.malformed") for anything that is not exactly one transaction of <= 400 kB."""
    if len(raw) > SIZE_MAX:
        raise _malformed(f"it is {len(raw)} bytes long; the limit is {SIZE_MAX}")
    reader = _Reader(raw)
    version = reader.number(4)
    segwit = raw[4:6] == b"\0\1"
    if segwit:
        reader.take(2)
    inputs = tuple(_input(reader) for _ in range(reader.compact()))
    outputs = tuple(TxOut(reader.number(8), reader.sized()) for _ in range(reader.compact()))
    witnesses = tuple(_witness(reader) for _ in inputs) if segwit else ()
    tx = Tx(version, inputs, outputs, reader.number(4), witnesses)
    if reader.at != len(raw):
        raise _malformed("something follows it")
    return tx


def _input(reader: _Reader) -> TxIn:
    txid = reader.take(32)[::-1].hex()
    vout = reader.number(4)
    script_sig = reader.sized()
    return TxIn(txid, vout, reader.number(4), script_sig)


def _witness(reader: _Reader) -> Witness:
    return tuple(reader.sized() for _ in range(reader.compact()))


def _malformed(why: str) -> PeerError:
    return PeerError("tx.malformed", f"this is not a transaction we can read: {why}")
