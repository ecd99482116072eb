"""What ``--detach`` starts: ``python -m dockage.cli.background HOME``, with the overrides as JSON on stdin."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

from .errors import guarded

BUG = 70
"""EX_SOFTWARE of sysexits.h."""


def run() -> None:
    from dockage.daemon import system

    system.main(Path(sys.argv[1]), json.load(sys.stdin))


def main() -> int:
    try:
        return guarded(run, as_json=False)
    except Exception:
        traceback.print_exc()
        return BUG  # not python's 1, which would be the user's fault


if __name__ == "__main__":
    sys.exit(main())
