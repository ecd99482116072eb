"""Frames of a bundle: what goes in comes out, however it is cut, and nothing else is understood."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.errors import PeerError
from dockage.protocol.bundles import PAYLOAD_MAX, WINDOW, Frames, Kind, data_frame, encode

NUMBERS = st.integers(1, (1 << 32) - 1)
FRAMES = st.one_of(
    st.builds(data_frame, NUMBERS, st.binary(min_size=1, max_size=40)),
    st.builds(encode, st.sampled_from([Kind.FINISH, Kind.RESET]), NUMBERS),
    st.builds(encode, st.just(Kind.CREDIT), NUMBERS, st.integers(1, WINDOW)),
)


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(0, 300), max_size=8))
def test_frames_come_out_as_they_went_in_however_they_are_cut(sent: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(sent)
    ends = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    frames, found = Frames(), []
    for start, end in pairwise(ends):
        found += frames.feed(whole[start:end])
    again = [
        data_frame(x.stream, x.data) if x.kind == Kind.DATA else encode(Kind(x.kind), x.stream, x.number)
        for x in found
    ]
    assert again == sent


@given(st.binary(max_size=200))
def test_noise_is_refused_or_waits_for_more(noise: bytes) -> None:
    with suppress(PeerError):
        Frames().feed(noise)


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (0, 0), (0, PAYLOAD_MAX + 1), (0, (1 << 32) - 1), (1, 1), (2, 1), (3, 0), (3, WINDOW + 1), (4, 0), (255, 9),
    ],
)  # fmt: skip
def test_a_head_that_says_what_cannot_be_is_refused_before_its_data(kind: int, number: int) -> None:
    with pytest.raises(PeerError) as caught:
        Frames().feed(bytes([kind]) + (1).to_bytes(4, "big") + number.to_bytes(4, "big"))
    assert caught.value.code == "bundle.malformed"


def test_a_known_frame_is_these_bytes() -> None:
    assert data_frame(7, b"hi").hex() == "0000000007000000026869"
    assert encode(Kind.CREDIT, 1, 65536).hex() == "030000000100010000"
