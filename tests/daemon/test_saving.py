"""What is saved is what the next start reads, and nothing that our user wrote is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dockage.daemon import loading, saving
from dockage.domain.errors import UsageError

KEY = "ab" * 32
WANTED: dict[str, dict[str, Any]] = {
    "provider": {"enabled": True, "only_for": ["own"], "tariff": {"cpu_hour": 4}},
    "node": {"seeds": [f"{KEY}@1.2.3.4:5"]},
    "peg": {"unit": "USD"},
}
WRITTEN = (
    "",
    '# mine\n[node] # the node\nbind = "1.2.3.4:5" # why\n\n[provider.tariff]\ncpu_hour = 3\n\n[gateway]\n',
    'node.bind = "1.2.3.4:5"\nprovider = { region = "eu" }\n',
    '[provider]\nregion = "eu"\n[node]\nbind = "1.2.3.4:5"\n[provider.tariff]\ncpu_hour = 3\n',
)


@pytest.mark.parametrize("text", WRITTEN)
def test_it_is_read_back_and_what_was_there_stays(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    if text:
        file.write_text(text)
    before = loading.load(tmp_path)
    assert len(saving.save(tmp_path, WANTED)) == 5
    assert loading.load(tmp_path) == loading.load(tmp_path, WANTED)
    assert loading.load(tmp_path).node.bind == before.node.bind
    assert all(word in file.read_text() for word in ("# mine", "# the node", "# why") if word in text)
    assert saving.unsaved(tmp_path, WANTED) == saving.save(tmp_path, WANTED) == []


def test_what_could_not_be_loaded_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("# mine\n")
    for wrong in ({"node": {"colour": "red"}}, {"node": {"bind": "here"}}, {"nodes": {}}):
        with pytest.raises(UsageError, match="config"):
            saving.save(tmp_path, wrong)
    assert (tmp_path / "config.toml").read_text() == "# mine\n"


def test_it_is_nobody_elses_unless_our_user_opened_it(tmp_path: Path) -> None:
    saving.save(tmp_path, WANTED)
    file = tmp_path / "config.toml"
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    saving.save(tmp_path, {"bitcoin": {"password": "secret"}})
    assert file.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("[node]\nbnd = 1\n", "node.bind"),
        ('bind = "x"\n', "node.bind or gateway.bind"),
        ("[nodes]\n", "node"),
        ('[node]\nprice_preset = "x"\n', "provider.price_preset"),
        ('[provider]\nonly-for = ["own"]\n', "provider.only_for"),
    ],
)
def test_a_setting_that_there_is_not_is_named_and_the_nearest_too(
    tmp_path: Path, text: str, meant: str
) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(UsageError, match=rf"knows no setting .* \(is {meant} meant\?\)"):
        loading.load(tmp_path)
