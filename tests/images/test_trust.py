"""TLS to registries: whose certificate is believed; and Docker Hub as it is, with token server and store of blobs."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from socket import AF_INET, AddressFamily
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from certlab import LOCAL, Authority
from dockage.adapters.images import OwnImages, Pulling
from dockage.adapters.images.trust import Trust, place
from dockage.domain.errors import UsageError
from dockage.protocol.registry import HUB_HOST, Credentials
from dockage.testing.clock import ManualClock
from images.pretended import Pretended, Reply

HUB, TOKENS, BLOBS = HUB_HOST, "auth.example", "blobs.example"
NOBODY = Credentials()
Serve = Callable[[ssl.SSLContext], Coroutine[Any, Any, Pretended]]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def begin(tls: ssl.SSLContext) -> Pretended:
            pretended = Pretended()
            await pretended.start(tls)
            stack.push_async_callback(pretended.runner.cleanup)
            return pretended

        yield begin


@pytest.fixture
def store(tmp_path: Path) -> OwnImages:
    return OwnImages(tmp_path / "own", ManualClock())


@pytest.fixture
def pulling(store: OwnImages, tmp_path: Path) -> Pulling:
    return Pulling(store, tmp_path / "pulled", "x86_64", [tmp_path / "certs.d"])


def trusted(folder: Path, host: str, file: Path, name: str = "ca.crt") -> None:
    """As a user of Docker does it."""
    place = folder / "certs.d" / host / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(file.read_bytes())


async def pulled(pulling: Pulling, name: str, credentials: Credentials = NOBODY) -> str:
    return [line["status"] async for line in pulling.pull(name, "", credentials)][-1]


async def refused(pulling: Pulling, name: str) -> str:
    with pytest.raises(UsageError) as error:
        await pulled(pulling, name)
    assert error.value.code == "registry.certificate"
    return error.value.message


# -- on loopback, with names that are addresses ----------------------------------------------------------
async def test_any_certificate_will_do_on_this_machine_as_with_docker(
    authority: Authority, serve: Serve, pulling: Pulling
) -> None:
    there = await serve(authority.server("elsewhere.example", days=-1))
    assert "Downloaded" in await pulled(pulling, there.name)


async def test_who_names_an_authority_means_it(
    authority: Authority, serve: Serve, pulling: Pulling, tmp_path: Path
) -> None:
    """Nothing is asked of a server that another one has signed, not even without TLS."""
    there = await serve(authority.server())
    trusted(tmp_path, there.host, Authority(tmp_path / "another").file)
    said = await refused(pulling, there.name)
    assert there.host in said
    assert str(tmp_path / "certs.d" / there.host / "ca.crt") in said
    assert there.asked == []
    trusted(tmp_path, there.host, authority.file, "second.crt")
    assert "Downloaded" in await pulled(pulling, there.name)


@pytest.mark.parametrize(
    ("names", "days", "why"),
    [((LOCAL,), -1, "expired"), (("elsewhere.example",), 1, "not valid for '127.0.0.1'")],
)
async def test_a_certificate_of_the_past_or_of_another_is_told(
    authority: Authority,
    serve: Serve,
    pulling: Pulling,
    tmp_path: Path,
    names: list[str],
    days: int,
    why: str,
) -> None:
    there = await serve(authority.server(*names, days=days))
    trusted(tmp_path, there.host, authority.file)
    assert why in await refused(pulling, there.name)
    assert there.asked == []


async def test_a_registry_may_want_to_see_ours(
    authority: Authority, serve: Serve, pulling: Pulling, tmp_path: Path
) -> None:
    tls = authority.server()
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(authority.file)
    there = await serve(tls)
    trusted(tmp_path, there.host, authority.file)
    ours = authority.issue("ann.example")
    for name in ("client.cert", "client.key"):
        trusted(tmp_path, there.host, ours, name)
    assert "Downloaded" in await pulled(pulling, there.name)
    (tmp_path / "certs.d" / there.host / "client.key").unlink()
    with pytest.raises(UsageError, match=r"client\.cert \(or its key\) cannot be used"):
        await pulled(pulling, there.name)


def test_certificates_are_looked_for_where_docker_users_put_them(
    authority: Authority, tmp_path: Path
) -> None:
    trust = Trust([tmp_path / "none", tmp_path / "certs.d"], "host.example")
    assert not trust.knows("host.example")
    trusted(tmp_path, "host.example:5000", authority.file)
    trusted(tmp_path, "host.example", authority.file, "README")
    assert (trust.knows("host.example:5000"), trust.knows("host.example")) == (True, False)
    trusted(tmp_path, "..", authority.file)
    assert not any(map(trust.knows, ("..", ".", "", "a/../host.example:5000"))), (
        "a redirect names no other folder"
    )
    assert place(URL("https://host.example/x")) == place(URL("https://host.example:443")) == "host.example"
    assert place(URL("https://host.example:5000/x")) == "host.example:5000"
    many = {id(trust.context(URL(f"https://{number}.example"))) for number in range(9)}
    assert len(many) == 1, "no host that a registry invents costs memory"


# -- by name ---------------------------------------------------------------------------------------------
class Book(AbstractResolver):
    """Names that lead to ports of this machine, and no others."""

    ports: Mapping[str, int] = {}

    def __init__(self, loop: object) -> None: ...

    async def resolve(self, host: str, port: int = 0, family: AddressFamily = AF_INET) -> list[ResolveResult]:
        if host not in self.ports:
            raise OSError(f"nobody knows {host}")
        return [
            ResolveResult(hostname=host, host=LOCAL, port=self.ports[host], family=AF_INET, proto=0, flags=0)
        ]

    async def close(self) -> None: ...


@pytest.fixture
async def hub(authority: Authority, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Pretended]:
    """Docker Hub, its token server, its store of blobs; ``SSL_CERT_FILE`` names who has signed them."""
    found = {name: await serve(authority.server(name)) for name in (HUB, TOKENS, BLOBS)}
    monkeypatch.setattr(Book, "ports", {name: each.port for name, each in found.items()})
    monkeypatch.setattr("aiohttp.connector.DefaultResolver", Book)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    shelf, challenge = found[HUB], f'Bearer realm="https://{TOKENS}/token",service="registry.docker.io"'

    def front(request: web.Request) -> Reply | None:
        if request.headers.get("authorization") != "Bearer t0ken":
            return web.json_response({}, status=401, headers={"www-authenticate": challenge})
        what, _, name = request.path.removeprefix("/v2/library/app/").partition("/")
        if what == "blobs":
            return web.Response(
                status=307, headers={"location": f"https://{BLOBS}/v2/tests/app/blobs/{name}?sign=1"}
            )
        return web.Response(body=shelf.manifests[name])

    shelf.trick = front
    found[TOKENS].trick = lambda request: web.json_response({"token": "t0ken"})
    shelf.tag("latest", shelf.manifest())
    return found


async def test_a_bare_name_is_had_from_docker_hub(
    hub: Mapping[str, Pretended], pulling: Pulling, store: OwnImages
) -> None:
    """By name, over TLS, with a token for nobody; the store of blobs never sees it."""
    assert await pulled(pulling, "app") == "Status: Downloaded newer image for app:latest"
    assert store.find("docker.io/library/app")
    [token] = hub[TOKENS].asked
    assert dict(token.query) == {"service": "registry.docker.io", "scope": "repository:library/app:pull"}
    assert "authorization" not in token.headers, "nobody has logged in"
    assert hub[HUB].paths("/manifests/") == ["/v2/library/app/manifests/latest"] * 2
    assert len(hub[BLOBS].asked) == 4
    assert not any("authorization" in request.headers for request in hub[BLOBS].asked)


@pytest.mark.parametrize("host", [HUB, TOKENS, BLOBS])
async def test_each_of_them_must_be_who_it_says(
    hub: Mapping[str, Pretended], authority: Authority, serve: Serve, pulling: Pulling, host: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Somebody in between has a good certificate, but not for this name: he hears nothing, and nothing is kept."""
    between = await serve(authority.server("between.example"))
    monkeypatch.setattr(Book, "ports", {**Book.ports, host: between.port})
    said = await refused(pulling, "app")
    assert f"the certificate of {host} is not to be trusted" in said
    assert "Hostname mismatch" in said
    assert between.asked == []


async def test_an_authority_of_our_own_is_none_for_docker_hub(
    hub: Mapping[str, Pretended], pulling: Pulling, tmp_path: Path, authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """In ``certs.d`` it stands for one registry, with what that leads to, and for no other."""
    monkeypatch.delenv("SSL_CERT_FILE")
    trusted(tmp_path, "elsewhere.example", authority.file)
    assert f"certs.d/{HUB}/ca.crt" in await refused(pulling, "app")
    trusted(tmp_path, HUB, authority.file)
    assert "Downloaded" in await pulled(pulling, "app"), "the token server and the store are signed as it is"
