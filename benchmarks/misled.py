"""How far indexes that lie together lead a searcher astray: real queries to three of them, a board beside.

    script/bench misled [--json FILE] [--offers N] [--searchers N]

first   share of the best 64 offers, as they are now, in the answer to a new searcher's first question, mean
last    in the answer to its fifth: who was caught is asked no more
least   in the worst first answer of all
Each searcher asks two of the three, drawn by chance. Needs one core, no engine.
"""

# engines: none

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

import structlog

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from daemon.misled import Lie, Site, favours_its_own, hides, honest, shows_the_past

LIES: dict[str, Lie] = {
    "hide everything": hides(1),
    "hide half": hides(0.5),
    "hide a tenth": hides(0.1),
    "favour their own": favours_its_own,
    "show old prices": shows_the_past,
}


async def measure(offers: int, searchers: int) -> dict[str, Any]:
    site, rows = Site(offers), {}
    print(f"{'':32} {'first':>7} {'last':>7} {'least':>7}")
    for liars in (1, 2, 3):
        for name, lie in LIES.items():
            outcome = await site.outcome([lie] * liars + [honest] * (3 - liars), searchers)
            rows[f"{liars} of 3 {name}"] = outcome._asdict()
            print(
                f"{f'{liars} of 3 {name}':32} {outcome.first:7.1%} {outcome.last:7.1%} {outcome.least:7.1%}",
                flush=True,
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--offers", type=int, default=1000)
    parser.add_argument("--searchers", type=int, default=60)
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    rows = asyncio.run(measure(asked.offers, asked.searchers))
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
