"""The documentation says what the program does."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?:sh|bash|console|shell)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def commands() -> Iterator[tuple[str, list[str]]]:
    """Page and words of every shell line in the documentation that runs something of ours."""
    for page in PAGES:
        for block in FENCE.findall(page.read_text()):
            for line in block.replace("\\\n", " ").splitlines():
                words = words_of(line.strip().removeprefix("$ "))
                if words and (words[0] == "dockage" or words[0].removeprefix("./").startswith("script/")):
                    yield page.name, words


def words_of(line: str) -> list[str]:
    try:
        return [word for word in shlex.split(line, comments=True) if not re.fullmatch(r"[A-Z_]+=.*", word)]
    except ValueError:  # an apostrophe in the output that is shown
        return []


def test_every_script_in_the_docs_is_there() -> None:
    for page, words in commands():
        if words[0] != "dockage":
            assert (ROOT / words[0]).is_file(), f"{page}: {' '.join(words)}"


def test_every_dockage_command_in_the_docs_is_there() -> None:
    wanted = [(page, words) for page, words in commands() if words[0] == "dockage" and len(words) > 1]
    if not wanted:
        pytest.skip("no page shows a dockage command yet")
    import click

    from dockage.cli.main import main

    context = click.Context(main)
    for page, words in wanted:
        command = next((word for word in words[1:] if not word.startswith("-")), None)
        if command is not None:
            assert main.get_command(context, command) is not None, f"{page}: {' '.join(words)}"


def test_links_inside_the_docs_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in LINK.findall(page.read_text())
        if not target.startswith(("http://", "https://", "mailto:")) and not (page.parent / target).exists()
    ]
    assert broken == []


def test_the_pages_made_from_the_source_are_up_to_date() -> None:
    done = subprocess.run([ROOT / "script/docs", "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
