"""``dockage verify-proof`` needs no daemon: exit code 0 for what is proven, 1 for what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Call, value

VECTORS = json.loads((Path(__file__).parents[2] / "docs/spec/vectors/statements.json").read_text())["proofs"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["proves"])
def test_a_proof_is_proven(call: Call, tmp_path: Path, vector: dict[str, str]) -> None:
    file = tmp_path / "proof.json"
    file.write_text(vector["file"])
    answer = value(call("verify-proof", str(file), "--json"))
    assert answer["proven"] is True
    assert answer["reason"]["code"] == vector["proves"]
    said = call("verify-proof", str(file))
    assert answer["provider"] in said.stdout
    assert vector["proves"] in said.stdout


def test_one_changed_digit_and_it_is_not(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "proof.json"
    proof = json.loads(VECTORS[0]["file"])
    proof["second"]["body"] = proof["first"]["body"]
    file.write_text(json.dumps(proof))
    done = call("verify-proof", str(file), "--json")
    assert (done.exit_code, done.stdout) == (1, "")
    assert json.loads(done.stderr)["code"] == "proof.signature"


def test_another_file_is_no_proof(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "cat.png"
    file.write_bytes(b"\x89PNG")
    done = call("verify-proof", str(file))
    assert done.exit_code == 1
    assert "(proof.malformed)" in done.stderr


def test_a_file_that_is_not_there_is_wrong_usage(call: Call) -> None:
    assert call("verify-proof", "nowhere.json").exit_code == 2
