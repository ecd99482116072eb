"""The source as a text: small files, short functions, nothing of one machine in it."""

from __future__ import annotations

import ast
import re
import stat
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
BY_NAME = (
    "dockage.cli.main",
    "dockage.cli.background",
    "dockage.cli.commands.",
    "dockage.adapters.secp.",
    "dockage.testing.",
    "dockage.sim.",
)
FOREIGN = (
    # Joined here, so that this file is not the one that names them.
    "/wo" + "rk/",
    "/ro" + "ot/.",
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "deb.debian" + ".org",
    "snapshot.debian" + ".org",
    "registry-1." + "docker.io",
    "hub.docker" + ".com",
    "registry.npmjs" + ".org",
    "ghcr" + ".io",
    "quay" + ".io",
)


def python_files() -> list[Path]:
    return sorted((ROOT / "src").rglob("*.py"))


def files_in_git() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=30
    ).stdout
    return [ROOT / name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


def test_no_file_has_become_two_concepts() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in python_files()}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX} == {}


def test_no_function_fills_a_page() -> None:
    long = []
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {lines} lines")
    assert long == []


def test_every_module_says_what_it_is() -> None:
    silent = []
    for path in python_files():
        tree = ast.parse(path.read_text())
        if tree.body and ast.get_docstring(tree) is None:
            silent.append(str(path.relative_to(ROOT)))
    assert silent == []


def test_every_module_is_used() -> None:
    """By the program itself: what is found by name (``BY_NAME``) apart, and what tests are made from."""
    used = set()
    for path in python_files():
        used |= set(imported(path))
    unused = [name for name in map(module_of, python_files()) if name not in used]
    assert [name for name in unused if not name.startswith(BY_NAME)] == []


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """Modules and names, absolutely; a package is used with what is in it."""
    package = ".".join(path.relative_to(ROOT / "src").parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names):
                found = [alias.name for alias in names]
            case ast.ImportFrom(module, names, level):
                above = package.rsplit(".", level - 1)[0] if level else ""
                base = ".".join(part for part in (above, module) if part)
                found = [f"{base}.{alias.name}" for alias in names]
            case _:
                continue
        for name in found:
            while name:
                yield name
                name = name.rpartition(".")[0]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_no_file_names_a_machine_or_a_registry() -> None:
    found = []
    for path in files_in_git():
        text = path.read_bytes().decode(errors="replace")
        found += [f"{path.relative_to(ROOT)}: {word}" for word in FOREIGN if word in text]
    assert found == []


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"]]
    for group in project["dependency-groups"].values():
        wanted += [line for line in group if isinstance(line, str)]
    names = {re.split(r"[<>=!~\[; ]", line)[0].lower().replace("_", "-") for line in wanted}
    locked = set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements/dev.txt").read_text(), re.MULTILINE))
    assert names - locked == set(), "run script/lock"


def test_scripts_can_be_run() -> None:
    scripts = [path for path in (ROOT / "script").iterdir() if path.is_file() and path.suffix == ""]
    for path in [*scripts, ROOT / ".ci/run"]:
        assert path.stat().st_mode & stat.S_IXUSR, f"{path.name} is not executable"
        first = path.read_text().splitlines()[0]
        assert first.startswith("#!"), f"{path.name} does not say who runs it"
        if first.endswith(("/bash", "/sh")):
            subprocess.run(["bash", "-n", str(path)], check=True, timeout=30)
