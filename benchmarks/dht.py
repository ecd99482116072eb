"""The market's directory at 10,000 nodes, in the simulator: churn, hostile nodes, attacks on one topic.

    script/bench dht [--json FILE] [--nodes N] [--hours N] [--only churn|hostile|eclipse] [--seed N]

churn     MTBF 92 h, 0 and 30 % hostile nodes that deny everything and call strangers all the time, for simulated days
hostile   success beside the share of hostile nodes, for each kind of them
eclipse   success for topics that an attacker surrounds, who may choose the closest ids of so many networks

stored    share of stores of which at least one honest node other than the publisher holds the record a minute later
found     share of look-ups by honest nodes (none of them a holder) that bring the record
copies    honest holders, median
The nodes are the real ``DhtNode``; only their bytes do not travel. Needs one core, 700 MiB, no engine.
"""

# engines: none

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dockage.domain.identity import NodeKey
from dockage.domain.units import HOUR, MINUTE, Duration
from dockage.protocol.kademlia import Space
from dockage.protocol.records import node_topic
from dockage.sim.directory import Plan, Web
from dockage.sim.directory_trials import Trials
from dockage.sim.gangs import KINDS, Pool, surround

EACH = 128
"""Hostile nodes around each of a topic's three places: twice what a place holds."""
HEAD = f"{'':34} {'stored':>7} {'found':>7} {'copies':>7} {'least':>6} {'ms':>6} {'asked':>6} {'cpu s':>6}"


def figures(trials: Trials, began: float) -> dict[str, Any]:
    return {
        "stores": len(trials.copies),
        "lookups": len(trials.found),
        "stored": round(trials.stored_rate, 4),
        "found": round(trials.found_rate, 4),
        "copies": statistics.median(trials.copies),
        "copies_least": min(trials.copies),
        "lookup_p50_ms": round(statistics.median(trials.took) / 1e6),
        "asked": statistics.median(trials.asked),
        "cpu_s": round(time.process_time() - began, 1),
    }


def show(name: str, row: dict[str, Any]) -> None:
    print(
        f"{name:34} {row['stored']:7.1%} {row['found']:7.1%} {row['copies']:7.0f} {row['copies_least']:6d}"
        f" {row['lookup_p50_ms']:6d} {row['asked']:6.0f} {row['cpu_s']:6.0f}",
        flush=True,
    )


def churn(nodes: int, hours: int, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The tables' state too: whether hostile nodes win ground while honest ones come and go."""
    for hostile in (0.0, 0.3):
        began = time.process_time()
        web = Web(seed, Plan(nodes, hostile, spam=20 if hostile else 0), KINDS["deny"])
        trials = Trials(web)
        for hour in range(1, hours + 1):
            for _ in range(5):
                trials.trial(4)
            web.world.run(HOUR)
            if hour % 6 == 0 or hour == hours:
                state = {
                    "hostile_in_tables": round(trials.hostile_share(), 3),
                    "dead_in_tables": round(trials.dead_share(), 3),
                    "table": round(trials.table_size()),
                }
                told = f"   {hour} h: tables of {state['table']}, {state['hostile_in_tables']:.1%} hostile,"
                print(f"{told} {state['dead_in_tables']:.1%} gone; {web.questions:,} questions", flush=True)
                last = figures(trials, began) | state | {"hours": hour, "questions": web.questions}
        yield f"{hours} h of churn, {hostile:.0%} hostile", last


def hostile(nodes: int, hours: int, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in KINDS:
        for share in (0.1, 0.3, 0.5, 0.7):
            began = time.process_time()
            web = Web(seed, Plan(nodes, share, mtbf=0), KINDS[kind])
            trials = Trials(web)
            for _ in range(25):
                trials.trial(4)
            web.world.run(Duration(5 * MINUTE))
            yield f"{kind}, {share:.0%}", figures(trials, began)


def eclipse(nodes: int, hours: int, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    calm = Plan(nodes, mtbf=0)
    mined = calm._replace(space=Space(bound=False))
    attacks = [
        ("plain Kademlia, 20 mined keys a place", mined._replace(region=False), 0, 20),
        ("plain Kademlia, 128 mined keys", mined._replace(region=False), 0, EACH),
        ("ids from keys, regions, 128 mined", mined, 0, EACH),
        ("ids from addresses, no regions, 10,000 networks", calm._replace(region=False), 10_000, EACH),
        ("all of it, 1,000 networks to choose", calm, 1_000, EACH),
        ("all of it, 10,000 networks", calm, 10_000, EACH),
        ("all of it, 100,000 networks", calm, 100_000, EACH),
    ]
    for name, plan, networks, each in attacks:
        began = time.process_time()
        web = Web(seed, plan)
        trials, pool = Trials(web), Pool(web, networks)
        for _ in range(6):
            key = NodeKey(web.world.random.randbytes(32))
            surround(web, pool, node_topic(key), each)
            trials.trial_of(key, 8)
        web.world.run(Duration(5 * MINUTE))
        yield name, figures(trials, began)


PARTS = {"churn": churn, "hostile": hostile, "eclipse": eclipse}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--hours", type=int, default=48, help="simulated, of churn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=PARTS)
    asked = parser.parse_args()
    told: dict[str, Any] = {"nodes": asked.nodes, "seed": asked.seed}
    for part in [asked.only] if asked.only else PARTS:
        print(f"\n{part}, {asked.nodes:,} nodes\n{HEAD}")
        rows = told[part] = {}
        for name, row in PARTS[part](asked.nodes, asked.hours, asked.seed):
            rows[name] = row
            show(name, row)
            if asked.json:
                asked.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
