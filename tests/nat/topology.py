"""Two homes behind routers of their own, and a public machine between them: network namespaces, iptables, nothing else.

homeA -- routerA --+-- street --+-- routerB -- homeB          The street is TEST-NET-2; homes are 10.81 and 10.82.
                   +-- public --+
                   +-- shopC, shopD, shopE                    Others with public addresses of their own.
"""

from __future__ import annotations

import subprocess

PUBLIC = "198.51.100.7"
PREFIX = "dknat-"
SHOPS = {"shopC": "198.51.100.11", "shopD": "198.51.100.12", "shopE": "198.51.100.13"}
NAMES = ("street", "routerA", "routerB", "homeA", "homeB", "public", *SHOPS)


def run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"


def inside(name: str, *argv: str) -> None:
    run("ip", "netns", "exec", PREFIX + name, *argv)


def up() -> None:
    down()
    for name in NAMES:
        run("ip", "netns", "add", PREFIX + name)
        inside(name, "ip", "link", "set", "lo", "up")
    inside("street", "ip", "link", "add", "br0", "type", "bridge")
    inside("street", "ip", "link", "set", "br0", "up")
    there = {"routerA": "198.51.100.1", "routerB": "198.51.100.2", "public": PUBLIC, **SHOPS}
    for name, address in there.items():
        _cable("street", f"to-{name}", name, "wan", address)
        inside("street", "ip", "link", "set", f"to-{name}", "master", "br0")
    for side, net in {"A": "10.81.0", "B": "10.82.0"}.items():
        _cable(f"router{side}", "lan", f"home{side}", "eth0", f"{net}.2")
        inside(f"router{side}", "ip", "address", "add", f"{net}.1/24", "dev", "lan")
        inside(f"home{side}", "ip", "route", "add", "default", "via", f"{net}.1")
        inside(f"router{side}", "sysctl", "-qw", "net.ipv4.ip_forward=1")


def down() -> None:
    for name in NAMES:
        subprocess.run(["ip", "netns", "del", PREFIX + name], capture_output=True, timeout=30)


def _cable(one: str, end: str, other: str, far: str, address: str) -> None:
    run(
        "ip",
        "link",
        "add",
        end,
        "netns",
        PREFIX + one,
        "type",
        "veth",
        "peer",
        "name",
        far,
        "netns",
        PREFIX + other,
    )
    inside(one, "ip", "link", "set", end, "up")
    inside(other, "ip", "address", "add", f"{address}/24", "dev", far)
    inside(other, "ip", "link", "set", far, "up")


def translate(side: str, symmetric: bool) -> None:
    """What the router does: one port for all (a cone), or another for each destination. Nothing comes in unasked."""
    router = f"router{side}"
    inside(router, "iptables", "-t", "nat", "-F")
    inside(router, "iptables", "-F")
    port = ("--random-fully",) if symmetric else ()
    inside(
        router,
        "iptables",
        "-t",
        "nat",
        "-A",
        "POSTROUTING",
        "-o",
        "wan",
        "-p",
        "udp",
        "-j",
        "MASQUERADE",
        *port,
    )
    inside(router, "iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "wan", "-j", "MASQUERADE")
    for chain in ("INPUT", "FORWARD"):
        known = ("-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT")
        inside(router, "iptables", "-A", chain, "-i", "wan", *known)
        inside(router, "iptables", "-A", chain, "-i", "wan", "-j", "DROP")


def cut(between: bool) -> None:
    """The way between the two homes; each still reaches the public machine."""
    inside(
        "routerA",
        "iptables",
        "-I" if between else "-D",
        "FORWARD",
        "-d",
        "198.51.100.2",
        "-p",
        "udp",
        "-j",
        "DROP",
    )
    inside(
        "routerA",
        "iptables",
        "-I" if between else "-D",
        "FORWARD",
        "-s",
        "198.51.100.2",
        "-p",
        "udp",
        "-j",
        "DROP",
    )


def deafen(name: str, to: str, on: bool) -> None:
    """One way only: *name* hears nothing of *to* any more, which hears all that it says."""
    inside(name, "iptables", "-I" if on else "-D", "INPUT", "-s", to, "-j", "DROP")
