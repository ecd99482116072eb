"""The machine's name servers."""

from __future__ import annotations

import ipaddress
from pathlib import Path

RESOLV_CONF = Path("/etc/resolv.conf")


def resolvers(path: Path = RESOLV_CONF) -> tuple[str, ...]:
    """Those elsewhere, such as a home router: they lie behind the leases' firewall, and port 53 of these stays open,
    or containers could resolve nothing."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return ()
    named = [line.split()[1] for line in lines if line.startswith("nameserver ") and len(line.split()) > 1]
    return tuple(x for x in named if _is_elsewhere(x))


def _is_elsewhere(address: str) -> bool:
    try:
        return not ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
