"""The probe's output proves its work, or it is not believed; and the counters of both kinds of cgroups."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from pathlib import Path

import pytest

from dockage.adapters.probe.prober import program, unframed
from dockage.domain.errors import PeerError
from dockage.protocol import cgroupfiles, probe

ROOT = Path(__file__).parents[2]
SEED = "seed"


def nonces(process: int, count: int = 3) -> list[int]:
    found, nonce = [], 0
    while len(found) < count:
        if (
            hashlib.sha256(SEED.encode() + bytes([process]) + nonce.to_bytes(8, "big")).digest()[:2]
            < b"\x00\x10"
        ):
            found.append(nonce)
        nonce += 1
    return found


FIRST, SECOND = nonces(0), nonces(1)


def output(*lines: object) -> bytes:
    return "\n".join(" ".join(map(str, x)) if isinstance(x, list) else str(x) for x in lines).encode() + b"\n"


def test_what_was_found_says_how_much_was_done() -> None:
    told = probe.read(output(31, [500, 400, *FIRST], [510, 300, *SECOND]), SEED, 2)
    assert told == probe.Told(510, 700, 31, 6 * 4096)


@pytest.mark.parametrize(
    "lie",
    [
        b"",
        b"\xff",
        b"hello\n",
        output(31),
        output(31, [500]),
        output(31, [500, 400, *FIRST]),
        output(31, [500, 400, *FIRST], [500, 400, *FIRST]),
        output(31, [500, 400, *FIRST], [500, 400, FIRST[0] + 1]),
        output(31, [500, 400, *FIRST], [500, 400, *SECOND, *SECOND]),
        output(31, [500, 400, *FIRST], [500, 400, *reversed(SECOND)]),
        output(31, [500, 0, *FIRST], [500, 400, *SECOND]),
        output(31, [-1, 400, *FIRST], [500, 400, *SECOND]),
        output(-31, [500, 400, *FIRST], [500, 400, *SECOND]),
        output(31, [500, 400, *FIRST], [500, 400, 1 << 70]),
        output(31, [500, 400, *FIRST], [500, 400, *range(300)]),
    ],
)
def test_what_was_not_done_is_not_believed(lie: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        probe.read(lie, SEED, 2)
    assert caught.value.code == "probe.output"


@pytest.mark.skipif(program(platform.machine()) is None, reason="no probe for this processor")
def test_the_program_does_what_its_reader_checks(tmp_path: Path) -> None:
    file = tmp_path / "probe"
    file.write_bytes(program(platform.machine()) or b"")
    file.chmod(0o755)
    said = subprocess.run(
        [file, *probe.command(SEED, 1 << 20, 2)], capture_output=True, timeout=60, check=True
    )
    told = probe.read(said.stdout, SEED, 2)
    assert told.work > 0
    assert told.touch_ns > 0
    assert told.wall_ns >= probe.MILLISECONDS * 1_000_000
    assert subprocess.run([file, "x"], timeout=60).returncode == 2


def test_the_same_program_is_the_same_image() -> None:
    one, two = probe.image(b"\x7fELF", "x86_64"), probe.image(b"\x7fELF", "x86_64")
    assert one == two
    assert one.manifest.layers[0].digest == hashlib.sha256(one.layer).digest()


V1 = "123456789\n7000000\ncache 1\ntotal_inactive_file 2000000\n"
V2 = "9000000\nanon 5\ninactive_file 1000000\nusage_usec 1500\nuser_usec 1000\nnr_throttled 0\n"


@pytest.mark.parametrize(
    ("text", "counters"),
    [
        (V1, (123456789, 5_000_000)),
        (V2, (1_500_000, 8_000_000)),
        ("", None),
        ("123\n", None),
        ("usage_usec 5\n", None),
        ("1\n2\n3\n", None),
    ],
)
def test_counters_of_both_kinds_of_cgroups(text: str, counters: tuple[int, int] | None) -> None:
    assert cgroupfiles.read(text) == counters


def test_stream_frames_are_taken_apart_and_stderr_is_left_out() -> None:
    data = b"\1\0\0\0\0\0\0\2ab\2\0\0\0\0\0\0\3err\1\0\0\0\0\0\0\1c\1\0\0"
    assert unframed(data) == b"abc"
