"""A seed is a whole history: in this process, in another one, and whatever the interpreter's hash seed is."""

from __future__ import annotations

import os
import subprocess
import sys

from dockage.sim.town import Plan, Town

SCRIPT = """
from dockage.domain.units import MINUTE, Duration
from dockage.sim.town import Plan, Town
town = Town(11, Plan(providers=6, tenants=12, crashes_per_hour=3.0, time=Duration(30 * MINUTE)))
town.live()
print(town.digest)
"""


def digest_with(hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    return done.stdout.strip()


def test_the_same_seed_is_the_same_history_whatever_the_hash_seed() -> None:
    first = digest_with("1")
    assert len(first) == 32
    assert digest_with("2") == first


def test_another_seed_is_another_history() -> None:
    digests = []
    for seed in (1, 1, 2):
        town = Town(seed, Plan(providers=2, tenants=4))
        town.world.run(town.plan.time // 6)  # type: ignore[arg-type]
        digests.append(town.digest)
    assert digests[0] == digests[1] != digests[2]
