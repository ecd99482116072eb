"""What dockerd does to the machine's packet filter, undone.

dockerd never removes its chains, and a second dockerd empties those of the first when it starts. So an
engine of ours puts back what its start swept away, and takes along, when it stops, every rule that
names its networks; the last one also takes the chains, if there were none before the first.
"""

from __future__ import annotations

import shlex
from typing import NamedTuple

from devtools.shell import run, works

SAVES = {"iptables": "iptables-save", "ip6tables": "ip6tables-save"}


class Rule(NamedTuple):
    tool: str
    table: str
    chain: str
    text: str
    """Everything after the chain's name, as iptables-save prints it."""

    def command(self, action: str, *position: str) -> list[str]:
        return [self.tool, "-w", "-t", self.table, action, self.chain, *position, *shlex.split(self.text)]


class Chain(NamedTuple):
    tool: str
    table: str
    name: str
    policy: str
    """ACCEPT or DROP for a built-in chain, "-" for one that somebody made."""


class Snapshot(NamedTuple):
    rules: list[Rule]
    chains: list[Chain]

    def docker_chains(self) -> list[Chain]:
        return [chain for chain in self.chains if chain.name.startswith("DOCKER")]

    def forward_policy(self) -> str:
        policies = [
            c.policy for c in self.chains if (c.tool, c.table, c.name) == ("iptables", "filter", "FORWARD")
        ]
        return policies[0] if policies else "ACCEPT"


def snapshot() -> Snapshot:
    rules, chains = [], []
    for tool, save in SAVES.items():
        table = ""
        for line in run(save, check=False).splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith(":"):
                name, policy, *_ = line[1:].split()
                chains.append(Chain(tool, table, name, policy))
            elif line.startswith("-A "):
                _, chain, text = (*line.split(" ", 2), "")[:3]
                rules.append(Rule(tool, table, chain, text))
    return Snapshot(rules, chains)


def put_back(before: Snapshot, after: Snapshot) -> None:
    """Restore what is in *before* and not in *after*. Goes on top: Docker's chains end in RETURN."""
    for rule in reversed([rule for rule in before.rules if rule not in set(after.rules)]):
        works(*rule.command("-I", "1"))


def remove_naming(words: set[str]) -> None:
    """Delete every rule that has one of *words* (interfaces, subnets, addresses) among its words."""
    for rule in snapshot().rules:
        if words & set(shlex.split(rule.text)):
            works(*rule.command("-D"))


def remove_docker_chains(forward_policy: str) -> None:
    """Delete Docker's chains and the jumps to them, and give FORWARD its policy back."""
    state = snapshot()
    names = {chain.name for chain in state.docker_chains()}
    for rule in state.rules:
        if names & set(shlex.split(rule.text)) or rule.chain in names:
            works(*rule.command("-D"))
    for chain in state.docker_chains():
        works(chain.tool, "-w", "-t", chain.table, "-X", chain.name)
    works("iptables", "-w", "-P", "FORWARD", forward_policy)
