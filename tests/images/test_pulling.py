"""Our own client against a registry that does what none should, and against what all of them do: tokens, platforms."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from dockage.adapters.images import OwnImages, Pulling
from dockage.adapters.images.downloads import TRIES, Downloads
from dockage.adapters.images.registry import Registry, as_private
from dockage.adapters.images.trust import is_loopback
from dockage.adapters.system.machine import architecture
from dockage.domain.errors import DockageError, PeerError, Unavailable, UsageError
from dockage.protocol import registry
from dockage.protocol.registry import Challenge, Credentials, Platform
from dockage.testing.clock import ManualClock
from images.pretended import GZIP, INDEX, SCHEMA2, Pretended, Reply, Trick, described, sha

NOBODY = Credentials()
ANN = Credentials(username="ann", password="open sesame")


@pytest.fixture
async def there() -> AsyncIterator[Pretended]:
    pretended = Pretended()
    await pretended.start()
    yield pretended
    await pretended.runner.cleanup()


@pytest.fixture
def store(tmp_path: Path) -> OwnImages:
    return OwnImages(tmp_path / "own", ManualClock())


@pytest.fixture
def pulling(store: OwnImages, tmp_path: Path) -> Pulling:
    found = Pulling(store, tmp_path / "pulled", "x86_64", [tmp_path / "certs.d"])
    found._downloads = Downloads(tmp_path / "pulled", pause=0.01)
    return found


async def told(
    pulling: Pulling, name: str, platform: str = "", credentials: Credentials = NOBODY
) -> list[str]:
    return [line["status"] async for line in pulling.pull(name, platform, credentials)]


async def refused(pulling: Pulling, name: str, kind: type[DockageError], code: str) -> str:
    with pytest.raises(kind) as error:
        await told(pulling, name)
    assert error.value.code == code, error.value.message
    return error.value.message


async def test_layers_of_every_kind_come_in_and_are_kept_raw(
    there: Pretended, store: OwnImages, pulling: Pulling, tmp_path: Path
) -> None:
    said = await told(pulling, there.name)
    assert said[-1] == f"Status: Downloaded newer image for {there.name}"
    image = store.find(there.name)
    assert image.manifest.config == there.config
    for layer, raw in zip(image.manifest.layers, there.raw, strict=True):
        with store.open(layer) as file:
            assert file.read() == raw
    assert image.digests == (f"{there.host}/tests/app@{sha(there.manifest())}",)
    assert OwnImages(tmp_path / "own", ManualClock()).find(image.digests[0]) == image
    assert list((tmp_path / "pulled").iterdir()) == []


async def test_what_is_here_is_not_had_again(there: Pretended, store: OwnImages, pulling: Pulling) -> None:
    await told(pulling, there.name)
    there.asked.clear()
    said = await told(pulling, there.name)
    assert said.count("Already exists") == 3
    assert said[-1] == f"Status: Image is up to date for {there.name}"
    assert len(there.paths("/blobs/")) == 1, "the config alone"


async def test_a_layer_that_was_cut_goes_on_where_it_stopped(there: Pretended, pulling: Pulling) -> None:
    digest, cuts = there.layers[0]["digest"], iter((300_000, 800_000))

    def cut(request: web.Request) -> Reply | None:
        at = next(cuts, 0) if digest in request.path else 0
        return _Half(request, there.packed[0], at) if at else None

    there.trick = cut
    await told(pulling, there.name)
    ranges = [request.headers.get("range") for request in there.asked if digest in request.path]
    assert ranges[0] is None
    assert all(at is not None and at != "bytes=0-" for at in ranges[1:]), ranges


class _Half(web.Response):
    """Promises all from where it was asked, and ends the connection before."""

    def __init__(self, request: web.Request, whole: bytes, end: int) -> None:
        begin = int(request.headers.get("range", "bytes=0-")[6:].rstrip("-"))
        headers = {"content-range": f"bytes {begin}-{len(whole) - 1}/{len(whole)}"}
        super().__init__(body=whole[begin:], status=206 if begin else 200, headers=headers)
        self._request, self._sent = request, whole[begin:end]

    async def write_eof(self, data: bytes = b"") -> None:
        assert self._payload_writer is not None
        await self._payload_writer.write(self._sent)
        if self._request.transport is not None:
            self._request.transport.close()


async def test_who_has_logged_in_gets_a_token_and_nobody_else_is_told(
    there: Pretended, store: OwnImages, pulling: Pulling
) -> None:
    """As at Docker Hub: the registry names a token server, and redirects blobs to a store of somebody else."""
    store_of_blobs = Pretended()
    await store_of_blobs.start()
    expected = "Basic " + base64.b64encode(b"ann:open sesame").decode()

    def hub(request: web.Request) -> Reply | None:
        if request.path == "/token":
            good = request.headers.get("authorization") == expected
            return web.json_response({"token": "t0ken"}) if good else web.json_response({}, status=401)
        if request.headers.get("authorization") != "Bearer t0ken":
            realm = (
                f'Bearer realm="http://{there.host}/token",service="hub",scope="repository:tests/app:pull"'
            )
            return web.json_response({}, status=401, headers={"www-authenticate": realm})
        if "/blobs/" in request.path:
            return web.Response(
                status=307, headers={"location": f"http://{store_of_blobs.host}{request.path}?sign=1"}
            )
        return None

    there.trick = hub
    try:
        message = await refused(pulling, there.name, UsageError, "registry.denied")
        assert "docker login" in message
        await told(pulling, there.name, credentials=ANN)
        assert store.find(there.name)
        assert len(store_of_blobs.asked) == 4
        assert not any("authorization" in request.headers for request in store_of_blobs.asked)
        [asked] = [request for request in there.asked if request.path == "/token"][1:2]
        assert dict(asked.query) == {"service": "hub", "scope": "repository:tests/app:pull"}
        await pulling.login(Credentials("ann", "open sesame", there.host))
        with pytest.raises(UsageError, match="does not take these credentials"):
            await pulling.login(Credentials("ann", "guess", there.host))
    finally:
        await store_of_blobs.runner.cleanup()


async def test_a_refresh_token_is_shown_to_the_token_server_alone(there: Pretended, pulling: Pulling) -> None:
    forms = list[str]()

    def hub(request: web.Request) -> Reply | None:
        if request.path == "/token":
            forms.append(request.method)
            return web.json_response({"access_token": "t0ken"})
        if request.headers.get("authorization") != "Bearer t0ken":
            header = {"www-authenticate": f'Bearer realm="http://{there.host}/token"'}
            return web.json_response({}, status=401, headers=header)
        return None

    there.trick = hub
    await told(pulling, there.name, credentials=Credentials(identitytoken="refresh"))
    assert forms == ["POST"]
    await told(pulling, there.name, credentials=Credentials(registrytoken="t0ken"))
    assert forms == ["POST"], "that one needs no server"


async def test_an_index_gives_the_image_for_the_platform(
    there: Pretended, store: OwnImages, pulling: Pulling
) -> None:
    mine = {"os": "linux", "architecture": "amd64"}
    other = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    absent = described(b"not there", SCHEMA2, platform=other)
    entries = [absent, described(there.manifest(), SCHEMA2, platform=mine)]
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    there.tag("many", index)
    name = f"{there.host}/tests/app:many"
    await told(pulling, name)
    assert store.find(name).digests == (f"{there.host}/tests/app@{sha(index)}",), (
        "the index is what was named"
    )
    with pytest.raises(UsageError, match="manifest unknown"):
        await told(pulling, name, "linux/arm64")
    with pytest.raises(UsageError, match=r"no matching manifest for linux/s390x.*linux/amd64, linux/arm64"):
        await told(pulling, name, "linux/s390x")
    with pytest.raises(UsageError, match="does not match the specified platform"):
        await told(pulling, there.name, "linux/arm64")
    with pytest.raises(UsageError, match="not a platform"):
        await told(pulling, name, "linux")


# -- lies ----------------------------------------------------------------------------------------------
def instead(part: str, body: bytes) -> Trick:
    return lambda request: web.Response(body=body) if part in request.path else None


def moved(part: str, where: str) -> Trick:
    headers = {"location": where}
    return lambda request: web.Response(status=302, headers=headers) if part in request.path else None


async def test_wrong_bytes_are_refused_and_the_old_image_stays(
    there: Pretended, store: OwnImages, pulling: Pulling, tmp_path: Path
) -> None:
    await told(pulling, there.name)
    old = store.find(there.name)
    packed = gzip.compress(b"new" * 400)
    config = json.loads(there.config)
    config["rootfs"]["diff_ids"][1] = sha(b"new" * 400)
    there.config = json.dumps(config).encode()
    there.layers[1] = described(packed, GZIP)
    there.blobs[sha(there.config)] = there.config
    there.tag("1", there.manifest())

    there.blobs[sha(packed)] = bytes(len(packed))
    await refused(pulling, there.name, PeerError, "registry.lie")
    there.blobs[sha(packed)] = packed + b"more"
    await refused(pulling, there.name, PeerError, "registry.oversized")
    there.blobs[sha(there.config)] = bytes(len(there.config))
    await refused(pulling, there.name, PeerError, "registry.lie")
    assert store.find(there.name) == old
    there.blobs |= {sha(packed): packed, sha(there.config): there.config}
    await told(pulling, there.name)
    assert store.find(there.name).manifest.config == there.config


@pytest.mark.parametrize(
    "packed", [gzip.compress(b"other" * 400), b"\x1f\x8bnonsense" * 9, b"\x28\xb5\x2f\xfdno" * 9]
)
async def test_a_layer_that_is_not_the_configs_is_refused(
    there: Pretended, store: OwnImages, pulling: Pulling, tmp_path: Path, packed: bytes
) -> None:
    """It hashes to what the manifest says, but unpacked it is another one, or nothing."""
    there.layers[1] = described(packed, GZIP)
    there.blobs[sha(packed)] = packed
    there.tag("1", there.manifest())
    await refused(pulling, there.name, PeerError, "registry.lie")
    assert store.all() == []


async def test_manifests_that_are_none_are_refused(
    there: Pretended, pulling: Pulling, store: OwnImages
) -> None:
    layer, config = there.layers[0], described(there.config)
    for body, code in (
        (b"{", "registry.manifest"),
        (b" " * (registry.MANIFEST_MAX + 1), "registry.oversized"),
        (there.manifest(schemaVersion=1), "registry.manifest"),
        (there.manifest(layers=[]), "registry.manifest"),
        (there.manifest(layers=[layer] * 300), "registry.manifest"),
        (there.manifest(layers=there.layers[:2]), "registry.manifest"),
        (there.manifest(layers=[layer | {"digest": "md5:1"}]), "registry.manifest"),
        (there.manifest(layers=[layer | {"size": -1}]), "registry.manifest"),
        (
            there.manifest(layers=[layer | {"mediaType": "application/vnd.cncf.helm.chart"}]),
            "registry.manifest",
        ),
        (there.manifest(config=config | {"size": 1 << 30}), "registry.manifest"),
        (there.manifest(config=None, manifests=[]), "registry.manifest"),
    ):
        there.manifests["1"] = body
        await refused(pulling, there.name, PeerError, code)
    there.manifests[sha(b"asked for")] = there.manifest()
    await refused(pulling, f"{there.host}/tests/app@{sha(b'asked for')}", PeerError, "registry.lie")
    assert store.all() == []


async def test_what_cannot_fit_is_not_even_begun(there: Pretended, tmp_path: Path) -> None:
    small = OwnImages(tmp_path / "small", ManualClock(), limit=1 << 20)
    await refused(
        Pulling(small, tmp_path / "pulled", "x86_64", [tmp_path]), there.name, UsageError, "image.store-full"
    )
    assert there.paths("/blobs/") == [f"/v2/tests/app/blobs/{sha(there.config)}"]


async def test_a_layer_that_unpacks_without_end_fills_no_disk(there: Pretended, tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    there.layers[0], there.blobs[sha(bomb)] = described(bomb, GZIP), bomb
    there.tag("1", there.manifest())
    small = OwnImages(tmp_path / "small", ManualClock(), limit=8 << 20)
    await refused(
        Pulling(small, tmp_path / "pulled", "x86_64", [tmp_path]), there.name, UsageError, "image.store-full"
    )
    assert sum(path.stat().st_size for path in (tmp_path / "small").rglob("*")) < 8 << 20


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ("file:///etc/passwd", "registry.moves"),
        ("ftp://127.0.0.1/x", "registry.moves"),
        ("/v2/tests/app/blobs/again", "registry.moves"),
        ("", "registry.moves"),
        ("http://127.0.0.1:9/", "registry.unreachable"),
    ],
)
async def test_it_is_not_followed_everywhere(
    there: Pretended, pulling: Pulling, where: str, code: str
) -> None:
    there.trick = moved("/blobs/", where)
    with pytest.raises(DockageError) as error:
        await told(pulling, there.name)
    assert error.value.code == code
    assert len(there.asked) < 60


def test_what_has_tls_is_not_followed_to_where_there_is_none() -> None:
    home, plain = URL("https://host.example"), URL("http://127.0.0.1:5000")
    assert as_private(home, URL("https://blobs.example/x"), "redirects") == URL("https://blobs.example/x")
    assert as_private(plain, URL("http://127.0.0.1:5001/x"), "redirects")
    for where in ("http://host.example/token", "http://169.254.169.254/latest", "gopher://x"):
        with pytest.raises(PeerError, match="not without TLS"):
            as_private(home, URL(where), "asks for tokens")


async def test_a_registry_that_stalls_is_left_after_a_while(there: Pretended) -> None:
    there.silent = True
    with pytest.raises(Unavailable) as error:
        async with Registry(registry.reference(there.name), Credentials(), (), silence=0.1) as source:
            await source.manifest()
    assert error.value.code == "registry.unreachable"


async def test_it_is_asked_in_vain_a_few_times_only(there: Pretended, pulling: Pulling) -> None:
    digest = there.layers[0]["digest"]
    there.trick = lambda request: web.Response(status=500) if digest in request.path else None
    message = await refused(pulling, there.name, Unavailable, "registry.failed")
    assert "500" in message
    assert len(there.paths(digest)) == TRIES


# -- pure ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "host", "repository", "version", "shown"),
    [
        ("nginx", registry.HUB_HOST, "library/nginx", "latest", "nginx:latest"),
        ("me/app:1", registry.HUB_HOST, "me/app", "1", "me/app:1"),
        ("docker.io/library/a", registry.HUB_HOST, "library/a", "latest", "a:latest"),
        ("localhost/app:1", "localhost", "app", "1", "localhost/app:1"),
        ("h.example:5000/a/b:2", "h.example:5000", "a/b", "2", "h.example:5000/a/b:2"),
        (f"a:1@{sha(b'')}", registry.HUB_HOST, "library/a", sha(b""), f"a@{sha(b'')}"),
    ],
)
def test_where_a_name_leads(text: str, host: str, repository: str, version: str, shown: str) -> None:
    found = registry.reference(text)
    assert (found.host, found.repository, found.version, str(found)) == (host, repository, version, shown)


@pytest.mark.parametrize("text", ["", "UP", "a@sha256:1", "a@md5:" + "0" * 64, "a b", "../x", "a:b:c", "a@"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        registry.reference(text)


def test_challenges_are_read_as_registries_write_them() -> None:
    hub = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/a:pull"'
    assert registry.challenge(hub) == Challenge(
        "bearer", "https://auth.docker.io/token", "registry.docker.io", "repository:library/a:pull"
    )
    assert registry.challenge("Basic realm=x").scheme == "basic"
    assert registry.challenge("Negotiate") == Challenge("")


def test_loopback_is_what_docker_takes_for_it() -> None:
    assert all(map(is_loopback, ("localhost", "localhost:5000", "127.0.0.1:5000", "127.3.2.1", "[::1]:5000")))
    assert not any(
        map(is_loopback, ("host.example", "10.0.0.1:5000", "127.0.0.1.example", "localhost.example"))
    )


@pytest.mark.parametrize(
    ("here", "market", "image"),
    [("x86_64", "x86_64", "amd64"), ("aarch64", "aarch64", "arm64"), ("arm64", "aarch64", "arm64")],
)
def test_what_is_pulled_and_who_is_looked_for_are_of_one_kind(
    here: str, market: str, image: str, monkeypatch: pytest.MonkeyPatch, store: OwnImages, tmp_path: Path
) -> None:
    """A Mac calls itself arm64, the providers' kernels call it aarch64."""
    monkeypatch.setattr("platform.machine", lambda: here)
    assert architecture() == market
    assert Pulling(store, tmp_path, architecture(), ())._usual == Platform("linux", image)


def test_variants_that_every_machine_has_are_none() -> None:
    assert registry.platform("linux/arm64/v8") == Platform("linux", "arm64")
    assert registry.platform("linux/arm/v7") == Platform("linux", "arm", "v7")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_manifest_a_fault_and_credentials_or_refused(data: bytes) -> None:
    for read in (registry.parse_manifest, registry.token):
        try:
            read(data)
        except PeerError:
            pass
    assert isinstance(registry.fault(data), str)
    try:
        registry.credentials(data.decode("latin-1"))
    except UsageError:
        pass
