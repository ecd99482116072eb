"""A command starts at once and knows only its own parts; the reference is what the commands say."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from dockage.cli.main import COMMANDS

from .conftest import Call
from .parts import CHEAP, DEAR, RUNNING, docker_socket, served

ROOT = Path(__file__).resolve().parent.parent.parent
CLI = ROOT / "src" / "dockage" / "cli"
HEAVY = (
    "aiohttp",
    "asyncio",
    "rich",
    "iroh",
    "uvloop",
    "structlog",
    "cryptography",
    "sqlite3",
    "dockage.adapters",
)


@pytest.mark.parametrize("command", ["spend", "market", "daemon", "up"])
def test_no_command_loads_what_it_does_not_need(command: str) -> None:
    code = f"import sys, dockage.cli.main, dockage.cli.commands.{command}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()
    assert [name for name in HEAVY if name in loaded] == []


def test_only_the_command_asked_for_is_loaded(home: Path) -> None:
    code = (
        "import sys\nfrom dockage.cli.main import main\n"
        f"try: main(['--home', {str(home)!r}, 'spend'])\n"
        "except SystemExit: print([n for n in sys.modules if n.startswith('dockage.cli.commands.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['dockage.cli.commands.spend']"


def test_the_command_line_imports_no_adapter() -> None:
    for file in CLI.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith("dockage.adapters")], file


def test_every_module_of_commands_is_listed() -> None:
    files = {file.stem.replace("_", "-") for file in (CLI / "commands").glob("[!_]*.py")}
    assert files == set(COMMANDS)


def test_the_reference_is_current() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "script" / "devtools" / "docs_cli.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


# -- completion --------------------------------------------------------------------------------------
def completed(call: Call, *words: str) -> set[str]:
    env = {
        "_DOCKAGE_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    shown = call(env=env).stdout
    return {line.partition(",")[2] for line in shown.splitlines() if line}


def test_commands_and_names_are_completed(call: Call, home: Path) -> None:
    at_home = ("dockage", "--home", str(home))
    with served(home):
        assert completed(call, *at_home, "sp") == {"spend"}
        assert completed(call, *at_home, "why", "s") == {"shop"}
        assert completed(call, *at_home, "why", "2") == {"22222222"}
        assert completed(call, *at_home, "channels", "close", "") == {"aaaaaaaa", "cccccccc"}
        keys = {CHEAP.node.hex(), DEAR.node.hex()}
        assert completed(call, *at_home, "market", "--provider", "") == keys


def test_containers_are_completed_and_explained_by_their_lease(call: Call, home: Path) -> None:
    labels = {"dockage.lease": RUNNING.hex()}
    listed = [{"Id": "ab" * 32, "Names": ["/shop-web-1"], "Labels": labels, "State": "running"}]
    with served(home), docker_socket(home, {"/containers/json?all=1": listed}):
        assert completed(call, "dockage", "--home", str(home), "why", "shop-") == {"shop-web-1"}
        for name in ("shop-web-1", "abab"):
            assert call("why", name).stdout.startswith(f"lease       {RUNNING.hex()}\n")
        assert call("why", "shop-db-1").exit_code == 1


def test_services_and_deployments_are_completed(
    call: Call, home: Path, tmp_path: Path, docker_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(docker_config))
    file = tmp_path / "compose.yaml"
    file.write_text("services: {web: {image: a}, worker: {image: b}, db: {image: c}}")
    at_home = ("dockage", "--home", str(home))
    assert completed(call, *at_home, "up", "-f", str(file), "w") == {"web", "worker"}
    with served(home):
        assert completed(call, *at_home, "up", "-p", "") == {"shop"}


def test_without_a_daemon_nothing_is_completed(call: Call, home: Path) -> None:
    assert completed(call, "dockage", "--home", str(home), "why", "") == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_names_us(call: Call, shell: str) -> None:
    assert "_DOCKAGE_COMPLETE" in call("completion", shell).stdout
