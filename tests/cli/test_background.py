"""The log of a detached node is bounded, whatever is written into it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WRITER = """
import subprocess, sys
from pathlib import Path
from dockage.cli.background import keep_small
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
for n in range(5):
    print("line", n, "x" * 100, flush=True)
    print("trouble", n, file=sys.stderr, flush=True)
    keep_small(Path(sys.argv[1]), 200)
child.communicate(b"of a child\\n")
"""


def test_a_full_log_is_kept_once_and_begun_anew(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    log.touch(mode=0o600)
    with log.open("ab") as out:
        words = [sys.executable, "-c", WRITER, str(log)]
        subprocess.run(words, stdout=out, stderr=out, check=True, timeout=60)
    old = tmp_path / "daemon.log.1"
    assert [line.split()[:2] for line in old.read_text().splitlines()] == [
        ["line", "2"], ["trouble", "2"], ["line", "3"], ["trouble", "3"],
    ]  # fmt: skip
    assert log.read_text().splitlines()[1:] == ["trouble 4", "of a child"]
    assert sorted(tmp_path.iterdir()) == [log, old]
