"""Networks that this machine is part of, or has a route of its own to: a lease must not reach them.

Private ones are refused anyway; these are the others, such as a home's IPv6 prefix or a data centre's public subnet.
Read from the kernel's routing tables (proc(5)), so it costs no process and follows what changes.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator
from pathlib import Path

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

TABLE4, TABLE6 = Path("/proc/thread-self/net/route"), Path("/proc/thread-self/net/ipv6_route")
UP, REJECT = 0x1, 0x200
"""include/uapi/linux/route.h"""
LARGEST = {4: 8, 6: 16}
"""Shorter prefixes are the internet, cut in halves or quarters by a VPN client."""
NETWORKS_MAX = 256
OWN = ("dk-", "lo")
"""Bridges of leases have walls of their own; what is local goes through INPUT."""


def networks(table4: Path = TABLE4, table6: Path = TABLE6) -> frozenset[Network]:
    found = sorted(
        {*_four(_read(table4)), *_six(_read(table6))}, key=lambda each: (each.version, each.prefixlen)
    )
    kept = (each for each in found if each.prefixlen >= LARGEST[each.version] and not each.is_link_local)
    return frozenset(list(kept)[:NETWORKS_MAX])


def _four(text: str) -> Iterator[Network]:
    for line in text.splitlines()[1:]:
        name, destination, _, flags, _, _, _, mask, *_ = line.split()
        if int(flags, 16) & (UP | REJECT) == UP and not name.startswith(OWN):
            yield ipaddress.IPv4Network((_swapped(destination), bin(int(mask, 16)).count("1")), strict=False)


def _six(text: str) -> Iterator[Network]:
    for line in text.splitlines():
        destination, length, _, _, _, _, _, _, flags, name = line.split()
        if int(flags, 16) & (UP | REJECT) == UP and not name.startswith(OWN):
            yield ipaddress.IPv6Network((bytes.fromhex(destination), int(length, 16)), strict=False)


def _swapped(text: str) -> int:
    """The table shows the four bytes as a number of this machine."""
    return int.from_bytes(int(text, 16).to_bytes(4, sys.byteorder), "big")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # a kernel without this family
