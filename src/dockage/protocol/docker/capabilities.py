"""Linux capabilities: what a container of a stranger gets, and how a tenant's wishes fit into it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

GRANTED = frozenset(
    {
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
"""Docker's default set less three: NET_RAW (forged packets on the bridge and into the internet), MKNOD and AUDIT_WRITE
(nothing in an ordinary image needs them).

What that means for ``ping`` (tried): engines open the sysctl ping_group_range, so a ping with datagram sockets works,
as iputils' is. busybox's knows raw sockets only. And a file that carries the capability cap_net_raw cannot even be
executed (EPERM: capabilities(7), "Safety checking for capability-dumb binaries"); Debian 12's iputils-ping is one,
where setcap was there at its installation."""


def plain(name: str) -> str:
    return name.upper().removeprefix("CAP_")


def added(value: Any) -> str:
    """Check of ``CapAdd``."""
    names = [plain(item) for item in value if isinstance(item, str)] if isinstance(value, list) else None
    if names is None or len(names) != len(value):
        return "must be a list of capability names"
    beyond = sorted(set(names) - GRANTED)
    if not beyond:
        return ""
    return f"{beyond[0][:40]} is not given to containers of strangers; offered: {', '.join(sorted(GRANTED))}"


def effective(add: Iterable[str], drop: Iterable[str]) -> list[str]:
    """What remains when everything is dropped first and this is added: Docker's own arithmetic, "ALL" too."""
    dropped = {plain(name) for name in drop}
    base = frozenset[str]() if "ALL" in dropped else GRANTED - dropped
    return sorted(base | ({plain(name) for name in add} & GRANTED))
