"""The channel's output as one descriptor line (BIP380, BIP386): the tenant's whole backup of a channel.

With the tenant's private key in it (WIF), stock bitcoind or BDK can make the refund without our software.
"""

from __future__ import annotations

from dockage.domain.channel import Terms

from .script import Funding

_INPUT = "0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyzABCDEFGH`#\"\\ "
_OUTPUT = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0xF5DEE51989, 0xA9FDCA3312, 0x1BAB10E32D, 0x3706B1677A, 0x644D626FFD)


def descriptor(terms: Terms, funding: Funding, tenant_key: str = "") -> str:
    """The line with its checksum. *tenant_key*: the tenant's WIF for a line that can spend; by default its
    public key, for a line that can only watch."""
    tenant = tenant_key or terms.tenant_key[1:].hex()
    close = f"and_v(v:pk({tenant}),pk({terms.provider_key[1:].hex()}))"
    refund = f"and_v(v:pk({tenant}),after({terms.expiry_height}))"
    line = f"tr({funding.internal_key.hex()},{{{close},{refund}}})"
    return f"{line}#{checksum(line)}"


def checksum(line: str) -> str:
    """The eight characters of BIP380. Raises ValueError for a character no descriptor has."""
    check = 1
    for symbol in (*_symbols(line), *[0] * 8):
        check = _step(check, symbol)
    check ^= 1
    return "".join(_OUTPUT[check >> 5 * (7 - i) & 31] for i in range(8))


def _symbols(line: str) -> list[int]:
    """The low five bits of each character, and after every third one their three high parts together."""
    symbols: list[int] = []
    group: list[int] = []
    for character in line:
        value = _INPUT.index(character)
        symbols.append(value & 31)
        group.append(value >> 5)
        if len(group) == 3:
            symbols.append(group[0] * 9 + group[1] * 3 + group[2])
            group = []
    if group:
        symbols.append(group[0] if len(group) == 1 else group[0] * 3 + group[1])
    return symbols


def _step(check: int, symbol: int) -> int:
    top = check >> 35
    check = (check & 0x7FFFFFFFF) << 5 ^ symbol
    for bit, generator in enumerate(_GENERATOR):
        if top >> bit & 1:
            check ^= generator
    return check
