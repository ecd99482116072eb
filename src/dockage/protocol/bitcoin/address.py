"""Segwit addresses: scriptPubKey <-> text (BIP173 for version 0, BIP350 for the others).

A wrong network is refused here, before any coin moves.
"""

from __future__ import annotations

from collections.abc import Iterable

from dockage.domain.errors import UsageError

_CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32, _BECH32M = 1, 0x2BC830A3

PROGRAM_MAX = 40
"""Bytes (BIP141)."""
PREFIXES = {"main": "bc", "test": "tb", "testnet4": "tb", "signet": "tb", "regtest": "bcrt"}
"""By the network's name as ``Chain.network`` says it."""


def encode(script: bytes, network: str) -> str:
    """Raises UsageError("address.script") if *script* is not a witness program."""
    version = _program_version(script)
    prefix = PREFIXES[network]
    data = [version, *_regroup(script[2:], 8, 5)]
    check = _checksum(prefix, data, _BECH32M if version else _BECH32)
    return prefix + "1" + "".join(_CHARSET[d] for d in data + check)


def decode(address: str, network: str) -> bytes:
    """The scriptPubKey. Raises UsageError("address.invalid") or ("address.network"), saying which."""
    prefix, _, body = address.lower().rpartition("1")
    if prefix in PREFIXES.values() and prefix != PREFIXES[network]:
        raise UsageError("address.network", f"{address} belongs to another network than {network}")
    data = [_CHARSET.find(c) for c in body]
    if address not in (address.lower(), address.upper()) or not data or min(data) < 0:
        raise _invalid(address)
    version, program = data[0], _regroup(data[1:-6], 5, 8)
    if len(program) > PROGRAM_MAX:
        raise _invalid(address)
    script = bytes([version + 0x50 if version else 0, len(program)]) + bytes(program)
    # Encoding again is the check of all the rest: checksum, prefix, padding, length, version.
    try:
        same = encode(script, network) == address.lower()
    except UsageError:
        same = False
    if not same:
        raise _invalid(address)
    return script


def _invalid(address: str) -> UsageError:
    return UsageError(
        "address.invalid", f"{address[:100]} is not a segwit address: copy it again, whole (bc1..., tb1...)"
    )


def is_witness_program(script: bytes) -> bool:
    """P2WPKH, P2WSH or P2TR: the outputs whose dust limit is at most 330 sat and which every node relays."""
    return (script[:2] == b"\0\x14" and len(script) == 22) or (
        script[:2] in (b"\0\x20", b"\x51\x20") and len(script) == 34
    )


def _program_version(script: bytes) -> int:
    if is_witness_program(script):
        return script[0] and script[0] - 0x50
    raise UsageError("address.script", f"no segwit address has the script {script[:64].hex()}")


def _regroup(values: Iterable[int], width: int, target: int) -> list[int]:
    """Bits regrouped from *width* to *target*; whole groups only when they narrow to bytes."""
    bits = "".join(f"{v:0{width}b}" for v in values)
    if target == 8:
        bits = bits[: len(bits) // 8 * 8]
    return [int(bits[i : i + target].ljust(target, "0"), 2) for i in range(0, len(bits), target)]


def _expand(prefix: str) -> list[int]:
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def _polymod(values: Iterable[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATOR):
            if top >> bit & 1:
                check ^= generator
    return check


def _checksum(prefix: str, data: list[int], constant: int) -> list[int]:
    check = _polymod(_expand(prefix) + data + [0] * 6) ^ constant
    return [check >> 5 * (5 - i) & 31 for i in range(6)]
