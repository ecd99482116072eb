"""The reference pages of settings, labels and the control API name everything that there is, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dockage.daemon.config import Config
from dockage.daemon.control import Control
from dockage.daemon.wishes import Wishes, read_wishes
from dockage.domain.errors import UsageError
from dockage.domain.resources import Resources
from dockage.domain.usage import Usage

ROOT = Path(__file__).resolve().parent.parent.parent
REFERENCE = ROOT / "docs/reference"
VALUES = {
    "region": "eu",
    "provider": "ab12",
    "max-price": "40",
    "channel-sat": "5000",
    "opacity": "sealed",
    "isolation": "vm",
    "replicas": "2",
    "standby": "1",
    "data": "expendable",
    "scale-max": "5",
    "scale-cpu": "60",
    "scale-down-after": "120",
    "schedule": "mon-fri 08:00-20:00 3",
    "scale-requests": "10",
    "sleep-after": "60",
    "public": "80",
    "reserved-cpus": "0.25",
    "host": "shop.example.org",
    "gateways": "2",
    "update-order": "stop-first",
    "update-parallelism": "2",
    "update-delay": "10",
    "update-monitor": "20",
    "update-within": "60",
    "update-failure": "pause",
    "move-saving": "20",
    "move-pause": "600",
    "max-spend": "90",
}


def test_the_generated_pages_are_current() -> None:
    check = [sys.executable, ROOT / "script/docs", "--check"]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60)
    assert [line for line in done.stdout.splitlines() if "config.md" in line or "labels.md" in line] == []


def test_every_field_of_the_configuration_is_described() -> None:
    page = (REFERENCE / "config.md").read_text()
    for section in Config.__struct_fields__:
        _, _, text = page.partition(f"## `[{section}]`")
        text = text.partition("\n## ")[0]
        fields: Any = type(getattr(Config(), section)).__struct_fields__
        assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(fields)


def test_every_label_is_described_and_every_described_label_is_read() -> None:
    listed = re.findall(r"^\| `dockage\.([a-z-]+)` \|", (REFERENCE / "labels.md").read_text(), re.MULTILINE)
    assert listed == list(VALUES)
    wishes = read_wishes({f"dockage.{name}": VALUES[name] for name in listed})
    unset = [
        field for field in Wishes.__struct_fields__ if getattr(wishes, field) == getattr(Wishes(), field)
    ]
    assert unset == []


@pytest.mark.parametrize("name", list(VALUES))
def test_a_label_with_a_senseless_value_is_refused_if_it_can_be_told(name: str) -> None:
    if name in ("region", "provider"):
        return
    with pytest.raises(UsageError) as caught:
        read_wishes({f"dockage.{name}": "-1"})
    assert f"dockage.{name}" in caught.value.message


def test_labels_of_others_are_none_of_our_business() -> None:
    assert read_wishes({"com.docker.compose.project": "x", "dockagex": "y"}) == Wishes()


def test_every_call_of_the_control_api_is_described() -> None:
    folder = Path(sys.modules[Control.__module__].__file__ or "").parent
    source = "".join(path.read_text() for path in folder.glob("control*.py"))
    served = {
        (verb.upper(), path.replace(":.+}", "}"))
        for verb, path in re.findall(r'web\.(get|post)\("(/v1/[^"]+)"', source)
    }
    page = (REFERENCE / "control-api.md").read_text()
    described = set(re.findall(r"^### `(GET|POST) (/v1/\S+)`", page, re.MULTILINE))
    assert described == served


def test_every_key_of_the_control_api_is_described() -> None:
    page = (REFERENCE / "control-api.md").read_text()
    keys: set[str] = set()
    for path in (ROOT / "src/dockage/daemon/views.py", *(ROOT / "src/dockage/daemon").glob("control*.py")):
        source = path.read_text()
        keys |= set(re.findall(r'^\s*(?:return \{)?"([a-z_]+)":', source, re.MULTILINE))
    keys |= {*Usage.__struct_fields__, *Resources.__struct_fields__}
    assert {key for key in keys if f"`{key}`" not in page and f'"{key}"' not in page} == set()


def test_every_test_that_the_page_on_attacks_names_is_there() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (ROOT / "docs/attacks.md").read_text())
    assert len(named) > 50
    missing = [f"{file}::{name}" for file, name in named if f"def {name}(" not in (ROOT / file).read_text()]
    assert missing == []
