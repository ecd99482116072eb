"""What a stranger's containers may reach: their own lease and the internet; never the machine or its LAN.

Chains of each lease and address family, hooked by the prefix of the lease's bridge names: DOCKER-USER sees what
is forwarded, INPUT what is for the machine itself (DOCKER-USER never sees that). A third one, which changes with the
machine's own networks, is called by the first. Nothing is shared between
leases or providers, so none can break another. The first and the last rule of the forward chain are meters: of
what stays within the lease and of what leaves for the internet.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.identity import LeaseId

from . import lan, names
from .command import Outcome, Run, must, together

PRIVATE4 = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
)  # fmt: skip
"""Special-purpose addresses (IANA registry, RFC 6890): LANs, carriers' NAT, cloud metadata, multicast."""
PRIVATE6 = (
    "::/128", "::1/128", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2002::/16",
    "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)  # fmt: skip
"""The same, and what is an IPv4 address in disguise (NAT64, Teredo, 6to4)."""
MAIL_PORTS = "25,465,587"
CONNECTIONS_MAX = 1024
"""Open TCP connections of one container to the internet."""
NEW_PER_SECOND, NEW_BURST = 100, 300
"""New flows of one container: a crawler's pace, not a port scanner's."""
RATE, BURST = "11mb/s", "22mb"
"""Of one lease to the internet: a little below what a tenant believes at all (``domain.statement.INTERNET_RATE``)."""
COUNT_EVERY = 1.0
"""Seconds between two looks at the counters of all leases."""
COUNT_REST = 400.0
"""A look that took 10 ms is followed by 4 s of rest, or many leases would cost more than they pay. Nothing is
lost by it: counters telescope."""
COUNT_REST_MAX = 30.0

INTERNET, REPLICA = "internet", "replica"
BRIDGED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
SIX = Path("/proc/net/if_inet6")
Now = Callable[[], float]
Lans = frozenset[lan.Network]


class Carried(NamedTuple):
    """Bytes at the IP layer that containers of one lease sent by themselves since the rules were made."""

    internet: int = 0
    replica: int = 0
    """To containers of the same lease. Frames within one bridge pass the rules only with br_netfilter."""

    def __add__(self, other: object) -> Carried:
        if not isinstance(other, Carried):
            return NotImplemented
        return Carried(self.internet + other.internet, self.replica + other.replica)


class Firewall:
    def __init__(
        self, run: Run, now: Now, resolvers: Iterable[str] = (), lans: Callable[[], Lans] = lan.networks
    ) -> None:
        self._run, self._now, self._lans = run, now, lans
        self._fenced: dict[LeaseId, Lans] = {}
        """Which networks of this machine each lease was kept from when its walls were last looked after."""
        self._resolvers = tuple(resolvers)
        self._count_due = float("-inf")
        self._counts: dict[str, Carried] = {}
        self._broken: set[str] = set()
        self._lock = asyncio.Lock()
        self._tools: tuple[str, ...] = ("iptables", "ip6tables")
        self.sees_bridged = False
        """Whether traffic within one bridge is counted here; where it is not, it is not billed either."""
        self.works = False
        """Whether ``check`` once found nothing wrong; what breaks later, ``prepare`` finds itself."""

    async def check(self) -> str:
        """An empty string, or what is wrong with iptables here. IPv6 is left out where the kernel has none."""
        if not shutil.which("iptables"):
            return "iptables is not installed: leases would reach your LAN; install it"
        outcome = await self._run(["iptables", "-w", "5", "-S", "INPUT"])
        if outcome.code:
            return f"iptables does not work here ({outcome.err.strip()}); run as root, outside of a sandbox"
        six = await self._run(["ip6tables", "-w", "5", "-S", "INPUT"]) if shutil.which("ip6tables") else None
        self._tools = ("iptables", "ip6tables") if six and not six.code else ("iptables",)
        if len(self._tools) == 1 and _is_there(SIX):
            why = six.err.strip() if six else "it is not installed"
            return f"ip6tables does not work here ({why}): leases would reach your LAN over IPv6; mend it"
        self.sees_bridged = _reads_one(BRIDGED)
        self.works = True
        return ""

    async def prepare(self, lease: LeaseId) -> None:
        """Rules that are already right stay: writing them again would lose their counts."""
        lans = self._lans()
        await together(self._build(tool, lease, lans) for tool in self._tools)
        self._fenced[lease] = lans

    async def _build(self, tool: str, lease: LeaseId, lans: Lans) -> None:
        """Look, then write what is missing in one step. With caps on connections; without them on a kernel that
        lacks those matches."""
        listed = await self._list(tool)
        _refuse_collision(listed, lease)
        fences, hooks = _fences(tool, lease, lans), _missing_hooks(listed, lease)
        why = ""
        for caps in (True, False):
            rules = _rules(tool, lease, self._resolvers, caps)
            seal = f"{lease.hex()} {hashlib.sha256(chr(10).join(rules).encode()).hexdigest()[:8]}"
            if any(seal in line for line in listed):
                lines = [*_changed_fences(listed, lease, fences), *hooks]
            else:
                lines = [*fences, *(rule.replace("SEAL", seal) for rule in rules), *hooks]
            if not lines:
                return
            outcome = await self._restore(tool, lines)
            if not outcome.code:
                return
            why = outcome.err.strip()
        raise unavailable(f"{tool}-restore refused the rules of lease {lease.hex()[:8]}: {why}")

    async def _list(self, tool: str) -> list[str]:
        outcome = await self._run([tool, "-w", "5", "-S"])
        if outcome.code:
            raise unavailable(f"{tool} does not work here: {outcome.err.strip() or outcome.code}")
        return outcome.out.splitlines()

    async def _restore(self, tool: str, lines: list[str]) -> Outcome:
        """All of *lines* or none."""
        text = "\n".join(["*filter", *lines, "COMMIT", ""])
        return await self._run([f"{tool}-restore", "-w", "5", "--noflush"], text)

    async def remove(self, lease: LeaseId) -> None:
        await together(self._demolish(tool, lease) for tool in self._tools)
        self._counts.pop(lease.hex(), None)
        self._fenced.pop(lease, None)

    async def _demolish(self, tool: str, lease: LeaseId) -> None:
        """Wherever they are hooked: the engine may have made DOCKER-USER after us."""
        tables = _tables(await must(self._run, [f"{tool}-save"]))
        listed = tables.get("filter", [])
        ours = (names.chain_forward(lease), names.chain_input(lease), names.chain_lan(lease))
        chains = [chain for chain in ours if any(line.startswith(f":{chain} ") for line in listed)]
        jumps = tuple(f" -j {chain}" for chain in chains)
        unhook = [
            line.replace("-A ", "-D ", 1)
            for line in listed
            if chains and line.startswith("-A ") and line.endswith(jumps)
        ]
        lines = unhook + [f"-F {chain}" for chain in chains] + [f"-X {chain}" for chain in chains]
        outcome = await self._restore(tool, lines) if lines else None
        if outcome is not None and outcome.code:
            raise unavailable(f"{tool}-restore kept rules of lease {lease.hex()[:8]}: {outcome.err.strip()}")
        await self._bury(tool, _of_bridges(tables, lease))

    async def _bury(self, tool: str, dead: list[tuple[str, str]]) -> None:
        """What the engine's own rules say of bridges that are gone: iptables fails an engine now and then (two
        writers at once), and it never tries again. Each alone and for what it is worth: nobody needs them any more,
        and the engine may be about to remove them itself."""
        for table, rule in dead:
            await self._run([tool, "-w", "5", "-t", table, "-D", *shlex.split(rule.removeprefix("-A "))])

    def look_again(self) -> None:
        """The next ``carried`` is of this moment."""
        self._count_due = float("-inf")

    async def carried(self, lease: LeaseId) -> Carried:
        """As of the last look, which is the rarer the longer it takes."""
        async with self._lock:
            if (began := self._now()) >= self._count_due:
                self._counts, self._broken = await self._count()
                rest = COUNT_REST * (self._now() - began)
                self._count_due = self._now() + min(COUNT_REST_MAX, max(COUNT_EVERY, rest))
                moved = self._lans()
                self._broken |= {each.hex()[:8] for each, lans in self._fenced.items() if lans != moved}
            # somebody reloaded the machine's rules, or it has come to another network: ours follow at once
            if lease.hex()[:8] in self._broken:
                await self.prepare(lease)
                self._broken -= {lease.hex()[:8]}
        return self._counts.get(lease.hex(), Carried())

    async def _count(self) -> tuple[dict[str, Carried], set[str]]:
        counts: dict[str, Carried] = {}
        broken: set[str] = set()
        for tool in self._tools:
            listing = await must(self._run, [f"{tool}-save", "-c", "-t", "filter"])
            for owner, carried in counted(listing).items():
                counts[owner] = counts.get(owner, Carried()) + carried
            broken |= unhooked(listing)
        return counts, broken


def _tables(listing: str) -> dict[str, list[str]]:
    """Lines by table, from ``iptables-save``."""
    tables: dict[str, list[str]] = {}
    for part in re.split(r"^\*", listing, flags=re.MULTILINE)[1:]:
        table, *lines = part.splitlines()
        tables[table] = lines
    return tables


def _of_bridges(tables: dict[str, list[str]], lease: LeaseId) -> list[tuple[str, str]]:
    """Table and rule of what names a single bridge of the lease; our own hooks name all of them by their prefix."""
    bridge = re.compile(rf" -[io] {names.bridge_prefix(lease)}\d+( |$)")
    return [(table, line) for table in tables for line in tables[table] if bridge.search(line)]


def counted(listing: str) -> dict[str, Carried]:
    """By lease hex, from ``iptables-save -c``: ``[packets:bytes] -A chain ... --comment "dockage ..."``."""
    meter = rf'^\[\d+:(\d+)\] .*"dockage ([0-9a-f]{{32}}) [0-9a-f]+ ({INTERNET}|{REPLICA})"'
    counts: dict[str, Carried] = {}
    for size, owner, kind in re.findall(meter, listing, re.MULTILINE):
        counts[owner] = counts.get(owner, Carried())._replace(**{kind: int(size)})
    return counts


HOOKS = 3  # the jump to the third chain ends differently


def unhooked(listing: str) -> set[str]:
    """The first eight digits of leases some of whose jumps into their chains are gone."""
    jumps = Counter(re.findall(r"-j DOCKAGE-(?:FWD|IN)-([0-9a-f]{8})$", listing, re.MULTILINE))
    return {
        lease
        for lease in re.findall(r"^:DOCKAGE-FWD-([0-9a-f]{8}) ", listing, re.MULTILINE)
        if jumps[lease] < HOOKS
    }


def _refuse_collision(listed: list[str], lease: LeaseId) -> None:
    ours = f"-A {names.chain_forward(lease)} "
    text = "\n".join(line for line in listed if line.startswith(ours))
    owners = set(re.findall(r"dockage ([0-9a-f]{32}) ", text))
    if owners - {lease.hex()}:
        raise UsageError(
            "lease.collision", "another lease's id begins with the same 8 digits; choose a new id"
        )


def _missing_hooks(listed: list[str], lease: LeaseId) -> list[str]:
    """An engine without iptables (or before its first bridge in IPv6) has no DOCKER-USER."""
    forward = "DOCKER-USER" if "-N DOCKER-USER" in listed else "FORWARD"
    ours, jump = names.bridge_prefix(lease) + "+", names.chain_forward(lease)
    hooks = (
        (forward, f"-i {ours} -j {jump}"),
        (forward, f"! -i {ours} -o {ours} -j {jump}"),  # or what stays within would be counted twice
        ("INPUT", f"-i {ours} -j {names.chain_input(lease)}"),
    )
    return [f"-I {chain} 1 {rule}" for chain, rule in hooks if f"-A {chain} {rule}" not in listed]


def _fences(tool: str, lease: LeaseId, lans: Lans) -> list[str]:
    """The chain of this machine's own networks, as ``iptables -S`` lists it."""
    chain, version = names.chain_lan(lease), 6 if tool == "ip6tables" else 4
    nets = sorted(str(each) for each in lans if each.version == version)
    return [f":{chain} - [0:0]", *(f"-A {chain} -d {net} {_reject(tool)}" for net in nets)]


def _changed_fences(listed: list[str], lease: LeaseId, fences: list[str]) -> list[str]:
    standing = [line for line in listed if line.startswith(f"-A {names.chain_lan(lease)} ")]
    return [] if standing == fences[1:] else fences


def _reject(tool: str) -> str:
    kind = "icmp6-adm-prohibited" if tool == "ip6tables" else "icmp-admin-prohibited"
    return "-j REJECT --reject-with " + kind


def _rules(tool: str, lease: LeaseId, resolvers: tuple[str, ...], caps: bool) -> list[str]:
    """Lines for ``iptables-restore --noflush``: each chain is emptied and filled in one step."""
    forward, into, ours = (
        names.chain_forward(lease),
        names.chain_input(lease),
        names.bridge_prefix(lease) + "+",
    )
    six = tool == "ip6tables"
    reject = _reject(tool)
    fine = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
    out = [
        f'-i {ours} -o {ours} -m comment --comment "dockage SEAL {REPLICA}" -j RETURN',
        # somebody else's bridge or LAN calls in: the tunnel comes from the machine itself, not through here
        f"-o {ours} {fine}",
        f"-o {ours} -j DROP",
        *(f"-d {address} -p {way} --dport 53 -j RETURN" for address, way in _dns(six, resolvers)),
        *(f"-d {net} {reject}" for net in (PRIVATE6 if six else PRIVATE4)),
        f"-j {names.chain_lan(lease)}",
        f"-p tcp -m multiport --dports {MAIL_PORTS} -j REJECT --reject-with tcp-reset",
        *(_caps(lease) if caps else ()),
        f'-m comment --comment "dockage SEAL {INTERNET}" -j RETURN',
    ]
    # IPv6 finds its neighbours by ICMP (RFC 4890 §4.4.1): without it a bridge is dead
    neighbours = [f"-p icmpv6 --icmpv6-type {kind} -j RETURN" for kind in (133, 135, 136)] if six else []
    into_rules = [fine, *neighbours, reject]
    lines = [f"-A {forward} {rule}" for rule in out] + [f"-A {into} {rule}" for rule in into_rules]
    return [f":{forward} - [0:0]", f":{into} - [0:0]", *lines]


def _caps(lease: LeaseId) -> list[str]:
    paced = f"-m hashlimit --hashlimit-above {NEW_PER_SECOND}/sec --hashlimit-burst {NEW_BURST} --hashlimit-mode srcip"
    name = f"--hashlimit-name dk-{lease.hex()[:8]}"
    return [
        f"-p tcp --syn -m connlimit --connlimit-above {CONNECTIONS_MAX} --connlimit-saddr "
        "-j REJECT --reject-with tcp-reset",
        f"-m conntrack --ctstate NEW {paced} {name} -j DROP",
        f"-m hashlimit --hashlimit-above {RATE} --hashlimit-burst {BURST} "
        f"--hashlimit-name dr-{lease.hex()[:8]} -j DROP",
    ]


def _dns(six: bool, resolvers: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(address, way) for address in resolvers if (":" in address) == six for way in ("udp", "tcp")]


def _is_there(path: Path) -> bool:
    return path.exists()


def _reads_one(switch: Path) -> bool:
    try:
        return switch.read_text().strip() == "1"
    except OSError:
        return False


def unavailable(why: str) -> Unavailable:
    return Unavailable("host.firewall", why)
