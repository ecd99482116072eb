"""What ``--detach`` starts: ``python -m dockage.cli.background HOME``, with the overrides as JSON on stdin."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .errors import guarded


def run() -> None:
    from dockage.daemon import system

    system.main(Path(sys.argv[1]), json.load(sys.stdin))


def main() -> int:
    return guarded(run, as_json=False)


if __name__ == "__main__":
    sys.exit(main())
