"""What is installed is whole: every file of the package, the command, one version."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from dockage import __version__

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_wheel_has_every_file_of_the_package_and_the_command(tmp_path: Path) -> None:
    build = f"import uv_build; uv_build.build_wheel({str(tmp_path)!r})"
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # where uv-build is
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, env=env, check=True, timeout=100)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {
            name for name in archive.namelist() if name.startswith("dockage/") and not name.endswith("/")
        }
        entry = archive.read(f"dockage-{__version__}.dist-info/entry_points.txt").decode()
    here = {
        str(file.relative_to(ROOT / "src"))
        for file in (ROOT / "src" / "dockage").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert packed == here
    assert any(not name.endswith(".py") for name in packed)  # the probe's program
    assert "dockage = dockage.cli.main:main" in entry
