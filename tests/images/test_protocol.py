"""The images conversation, both sides as values: what must travel, and one test for each lie."""

from __future__ import annotations

import hashlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.errors import PeerError
from dockage.protocol import images
from dockage.protocol.images import Chunk, Layer, Manifest, Want, Wanted
from dockage.wire.chunks import pack, unpack

MIB = 1 << 20


def config_of(*layers: Layer) -> bytes:
    diff_ids = ["sha256:" + layer.digest.hex() for layer in layers]
    return json.dumps(
        {"os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()


def layer_of(content: bytes) -> Layer:
    return Layer(hashlib.sha256(content).digest(), len(content))


A, B, C = (
    Layer(hashlib.sha256(name).digest(), size)
    for name, size in ((b"a", 512), (b"b", 2 * MIB + 7), (b"c", MIB))
)
IMAGE = Manifest(config_of(A, B, C), (A, B, C))


def test_a_manifest_survives_the_trip_and_names_the_image_by_its_config() -> None:
    assert images.decode_manifest(images.encode_manifest(IMAGE)) == IMAGE
    assert IMAGE.image == "sha256:" + hashlib.sha256(IMAGE.config).hexdigest()
    assert IMAGE.size == 512 + 3 * MIB + 7


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        (Manifest(IMAGE.config, (A, B)), "image.manifest"),
        (Manifest(IMAGE.config, (B, A, C)), "image.manifest"),
        (Manifest(config_of(), ()), "image.manifest"),
        (Manifest(config_of(Layer(A.digest, 0)), (Layer(A.digest, 0),)), "image.manifest"),
        (Manifest(config_of(Layer(A.digest, 1 << 50)), (Layer(A.digest, 1 << 50),)), "image.manifest"),
        (Manifest(b"{}", (A,)), "image.config"),
        (Manifest(b"not json", (A,)), "image.config"),
        (Manifest(b'{"rootfs":{"diff_ids":["../../etc/passwd"]}}', (A,)), "image.config"),
        (Manifest(b'{"rootfs":{"diff_ids":["sha256:' + b"A" * 64 + b'"]}}', (A,)), "image.config"),
        (Manifest(IMAGE.config + b" " * images.CONFIG_MAX, (A, B, C)), "image.manifest"),
        (Manifest(config_of(*[A] * 300), (A,) * 300), "image.manifest"),
    ],
)
def test_a_lying_manifest_is_refused(lie: Manifest, code: str) -> None:
    with pytest.raises(PeerError) as error:
        images.decode_manifest(images.encode_manifest(lie))
    assert error.value.code == code


@given(st.binary(max_size=300))
def test_noise_is_refused_and_never_more_than_that(noise: bytes) -> None:
    for decode in (images.decode_manifest, images.decode_reply, images.decode_chunk):
        try:
            decode(noise)
        except PeerError:
            pass


@pytest.mark.parametrize(
    ("chains", "known"),
    [
        ([], 0),
        ([["a", "b", "c", "d"]], 3),
        ([["a", "b"], ["a", "x", "c"]], 2),
        ([["b", "c"]], 0),
        ([["b", "a", "c"]], 0),
    ],
)
def test_only_a_layer_on_the_same_layers_is_known(chains: list[list[str]], known: int) -> None:
    assert images.known_prefix(["a", "b", "c"], chains) == known


def test_only_the_missing_is_wanted_from_where_it_broke() -> None:
    assert images.wanted_layers(IMAGE, 0, {}) == (Want(0, 0), Want(1, 0), Want(2, 0))
    assert images.wanted_layers(IMAGE, 1, {B.digest: MIB, C.digest: C.size}) == (Want(1, MIB),)
    assert images.wanted_layers(IMAGE, 3, {}) == ()


def test_an_equal_layer_is_sent_once() -> None:
    twice = Manifest(config_of(A, C, A), (A, C, A))
    assert images.wanted_layers(twice, 0, {}) == (Want(0, 0), Want(1, 0))


def test_chunks_cover_each_wanted_byte_once_in_one_order() -> None:
    chunks = list(images.expected_chunks(IMAGE, [Want(1, MIB), Want(2, 0)]))
    assert chunks == [(1, MIB, MIB), (1, 2 * MIB, 7), (2, 0, MIB)]
    assert sum(chunk.size for chunk in chunks) == images.check_wanted(
        IMAGE, Wanted((Want(1, MIB), Want(2, 0)))
    )


@pytest.mark.parametrize(
    "lie", [(Want(3, 0),), (Want(-1, 0),), (Want(0, 512),), (Want(0, -1),), (Want(1, 0), Want(1, 5))]
)
def test_a_provider_can_only_want_what_there_is(lie: tuple[Want, ...]) -> None:
    with pytest.raises(PeerError) as error:
        images.check_wanted(IMAGE, Wanted(lie))
    assert error.value.code == "image.wanted"


@given(st.binary(min_size=1, max_size=4096))
def test_a_chunk_survives_the_trip(raw: bytes) -> None:
    chunk = images.decode_chunk(images.encode_chunk(pack(5, 1 << 33, raw)))
    images.check_chunk(chunk, images.Expected(5, 1 << 33, len(raw)))
    assert unpack(chunk) == raw


@given(st.binary(min_size=64, max_size=512), st.data())
def test_a_changed_byte_is_found_in_every_place(raw: bytes, data: st.DataObject) -> None:
    frame = bytearray(images.encode_chunk(pack(0, 0, raw)))
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        chunk = images.decode_chunk(bytes(frame))
        images.check_chunk(chunk, images.Expected(0, 0, len(raw)))
        opened = unpack(chunk)
    except PeerError:
        return
    assert opened == raw  # a byte of the zstd frame that carries nothing


def test_a_chunk_that_would_swell_is_refused_before_it_is_opened() -> None:
    bomb = pack(0, 0, bytes(1 << 24))
    with pytest.raises(PeerError, match="another size"):
        unpack(bomb._replace(size=MIB))
    with pytest.raises(PeerError, match="holds 1 to"):
        images.decode_chunk(images.encode_chunk(bomb))


def test_incompressible_chunks_fit_in_a_frame() -> None:
    noise = b"".join(hashlib.sha512(n.to_bytes(4, "big")).digest() for n in range(MIB // 64))
    assert len(images.encode_chunk(pack(0, 0, noise))) <= images.CHUNK_FRAME_MAX


@pytest.mark.parametrize("other", [(1, 0, 7), (0, 7, 7), (0, 0, 8)])
def test_a_chunk_out_of_order_is_refused(other: tuple[int, int, int]) -> None:
    with pytest.raises(PeerError) as error:
        images.check_chunk(Chunk(0, 0, 7, bytes(32), b"x"), images.Expected(*other))
    assert error.value.code == "image.order"


def test_replies_are_told_apart_and_strangers_refused() -> None:
    for reply in (
        Wanted((Want(1, 2),)),
        images.Loaded("sha256:ab"),
        images.Refused("image.space", "no room"),
    ):
        assert images.decode_reply(images.encode_reply(reply)) == reply
    with pytest.raises(PeerError):
        images.decode_reply(msgspec.msgpack.encode({"type": "gift"}))
