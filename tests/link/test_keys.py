"""The identity file: made once, private, never replaced in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockage.adapters.keys import FileKeys
from dockage.domain.errors import UsageError
from dockage.domain.identity import NodeKey


def test_a_key_is_made_once_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "home" / "key"
    first, second = FileKeys(path), FileKeys(path)
    assert first.node == second.node
    assert first.seed == second.seed
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0
    assert [each.name for each in path.parent.iterdir()] == ["key"]


def test_it_signs_and_verifies(tmp_path: Path) -> None:
    keys, other = FileKeys(tmp_path / "a"), FileKeys(tmp_path / "b")
    signature = keys.sign(b"message")
    assert len(signature) == 64
    assert other.verify(keys.node, b"message", signature)
    assert not other.verify(other.node, b"message", signature)
    assert not other.verify(keys.node, b"massage", signature)


@pytest.mark.parametrize("signature", [b"", b"x", bytes(64), bytes(65), b"\xff" * 64])
def test_nonsense_is_not_a_signature(tmp_path: Path, signature: bytes) -> None:
    keys = FileKeys(tmp_path / "key")
    assert not keys.verify(keys.node, b"message", signature)
    assert not keys.verify(NodeKey(keys.node[:31]), b"message", signature)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    FileKeys(tmp_path / "key")
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(UsageError) as caught:
        FileKeys(tmp_path / "key")
    assert caught.value.code == "keys.exposed"
    assert "chmod 600" in caught.value.message


@pytest.mark.parametrize("content", ["", "zz", "00" * 31, "00" * 33])
def test_a_damaged_key_is_never_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(UsageError) as caught:
        FileKeys(path)
    assert caught.value.code == "keys.damaged"
    assert path.read_text() == content


def test_the_seed_is_not_shown(tmp_path: Path) -> None:
    keys = FileKeys(tmp_path / "key")
    assert keys.seed.hex() not in repr(keys)
