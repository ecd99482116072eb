"""Images from a real registry: pulled as docker pulls them, and pushed, through our socket.

Every test runs twice: with a local engine, to which all of it is relayed and which so says what is right, and with
none, where our own client pulls.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import docker
import pytest

from certlab import Authority
from frontlab import LIMITS, Tenant
from hostlab import IMAGE, Lab
from registrylab import PASSWORD, USER, registry

SCHEMA2 = "application/vnd.docker.distribution.manifest.v2+json"


class Shelf(NamedTuple):
    """A registry with ``app:1`` and ``app:2``; each says its number, and nobody has them locally."""

    host: str
    lab: Lab

    def app(self, version: str = "1") -> str:
        return f"{self.host}/tests/app:{version}"

    def digest(self, version: str = "1") -> str:
        self.lab.docker("pull", "-q", self.app(version))
        found = json.loads(
            self.lab.docker("image", "inspect", "-f", "{{json .RepoDigests}}", self.app(version))
        )
        self.clear()
        return str(found[0])

    def push(self, version: str, name: str = "") -> None:
        """Made new: what ``/version`` says in it."""
        name = name or self.app(version)
        write = ("--network", "none", IMAGE, "sh", "-c", f"echo {version} > /version")
        self.lab.docker("run", "--name", "made-for-the-registry", *write)
        self.lab.docker("commit", "-c", 'CMD ["/bin/sh"]', "made-for-the-registry", name)
        self.lab.docker("rm", "made-for-the-registry")
        self.lab.docker("push", name)
        self.lab.docker("rmi", name)

    def point(self, tag: str, version: str) -> None:
        """From now on *tag* means this version."""
        at = f"http://{self.host}/v2/tests/app/manifests/"
        kind = {"Accept": SCHEMA2, "Content-Type": SCHEMA2}
        with urlopen(Request(at + version, headers=kind), timeout=60) as answer:
            manifest = answer.read()
        urlopen(Request(at + tag, manifest, kind, method="PUT"), timeout=60).close()

    def clear(self) -> None:
        """By name: an id may be the base image's, too."""
        shape = '{{if eq .Tag "<none>"}}{{.Repository}}@{{.Digest}}{{else}}{{.Repository}}:{{.Tag}}{{end}}'
        for kind in ((), ("--digests",)):
            names = self.lab.docker(
                "images", *kind, "--format", shape, "--filter", f"reference={self.host}/*/*"
            ).split()
            if found := [name for name in dict.fromkeys(names) if not name.endswith("@")]:
                self.lab.docker("rmi", "-f", *found, check=False)


@pytest.fixture(scope="module")
def filled(engine_lab: Lab) -> Iterator[Shelf]:
    with engine_lab.inside(), registry() as host:
        shelf = Shelf(host, engine_lab)
        shelf.push("1")
        shelf.push("2")
        yield shelf


@pytest.fixture
def shelf(filled: Shelf, lab: Lab) -> Iterator[Shelf]:
    yield filled
    filled.clear()


@pytest.fixture(params=["engine", "own"])
def tenant(
    request: pytest.FixtureRequest,
    engine_tenant: Tenant,
    bare_tenant: Tenant,
    folder: Path,
    docker_config: Path,
) -> Tenant:
    """With plugins, and a folder of its own for what ``docker login`` writes."""
    tenant = {"engine": engine_tenant, "own": bare_tenant}[request.param]
    (folder / "login").mkdir()
    (folder / "login" / "cli-plugins").symlink_to(docker_config / "cli-plugins")
    tenant.env["DOCKER_CONFIG"] = str(folder / "login")
    return tenant


async def test_an_image_that_is_nowhere_is_pulled_and_run(tenant: Tenant, shelf: Shelf) -> None:
    done = await tenant.tried("run", "--rm", *LIMITS, shelf.app(), "cat", "/version")
    assert (done.code, done.out) == (0, "1"), done
    assert f"Unable to find image '{shelf.app()}' locally" in done.err
    assert f"Status: Downloaded newer image for {shelf.app()}" in done.err
    assert "Pull complete" in done.err, done.err
    again = await tenant.tried("run", "--rm", *LIMITS, shelf.app(), "cat", "/version")
    assert (again.out, again.err) == ("1", "")


async def test_when_it_is_pulled_is_the_users_choice(bare_tenant: Tenant, shelf: Shelf) -> None:
    name = shelf.app("moving")
    never = await bare_tenant.refused("run", "--pull", "never", *LIMITS, name)
    assert "No such image" in never
    shelf.point("moving", "1")
    read = ("--rm", *LIMITS, name, "cat", "/version")
    assert await bare_tenant.docker("run", "--pull", "missing", *read) == "1"
    shelf.point("moving", "2")
    assert await bare_tenant.docker("run", "--pull", "always", *read) == "2"


async def test_a_digest_is_a_name_like_any_other(bare_tenant: Tenant, shelf: Shelf) -> None:
    name = shelf.digest("2")
    assert await bare_tenant.docker("run", "--rm", *LIMITS, name, "cat", "/version") == "2"
    [shown] = json.loads(await bare_tenant.docker("image", "inspect", name))
    assert shown["RepoDigests"] == [name]
    assert await bare_tenant.docker("images", "-q", "--filter", "dangling=true") == ""
    await bare_tenant.docker("tag", name, shelf.app("mine"))
    assert name in await bare_tenant.docker("images", "--digests", "--format", "{{.Repository}}@{{.Digest}}")
    assert f"Untagged: {name}" in await bare_tenant.docker("rmi", shelf.app("mine"))


async def test_what_is_not_there_and_who_does_not_answer_is_told(tenant: Tenant, shelf: Shelf) -> None:
    for words in (("pull",), ("run", *LIMITS)):
        assert "not found" in await tenant.refused(*words, f"{shelf.host}/tests/nothing:1")
        assert "not found" in await tenant.refused(*words, shelf.app("7"))
    lost = f"{shelf.host}/tests/app@sha256:{'0' * 64}"
    assert "not found" in await tenant.refused("pull", lost)
    assert "127.0.0.1:9" in await tenant.refused("pull", "127.0.0.1:9/nobody/there:1")
    assert "invalid reference" in await tenant.refused("pull", f"{shelf.host}/UPPER:1")
    with pytest.raises(docker.errors.NotFound):
        await asyncio.to_thread(docker_py_pull, tenant, f"{shelf.host}/tests/nothing:1")
    assert tenant.leases.obtained == []


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def private(engine_lab: Lab, authority: Authority) -> Iterator[str]:
    """An image in a registry that wants to know who asks, behind TLS of an authority that nobody knows."""
    with engine_lab.inside(), registry(authority.issue()) as host:
        name = f"{host}/tests/secret:1"
        engine_lab.docker("login", "-u", USER, "-p", PASSWORD, host)
        Shelf(host, engine_lab).push("9", name)
        engine_lab.docker("logout", host)
        yield name


async def test_a_private_registry_opens_to_who_has_logged_in(
    request: pytest.FixtureRequest, tenant: Tenant, private: str, authority: Authority, folder: Path
) -> None:
    """Without an engine by a certificate in ``certs.d``. The engine takes any on loopback; refused there, it asks once
    more without TLS, and tells of that."""
    host, login = private.partition("/")[0], ("login", "-u", USER, "--password-stdin")
    trusted = folder / "certs.d" / host
    trusted.mkdir(parents=True)
    (trusted / "ca.crt").write_bytes(authority.file.read_bytes())

    async def closed(*words: str) -> None:
        said = await tenant.refused(*words, private)
        assert "own" not in request.node.name or "may require 'docker login'" in said, said

    await closed("pull")
    wrong = await tenant.tried(*login, host, stdin=b"nonsense")
    assert wrong.code != 0
    assert "401" in wrong.err or "unauthorized" in wrong.err
    await closed("run", *LIMITS)
    assert "Login Succeeded" in await tenant.docker(*login, host, stdin=PASSWORD.encode())
    assert await tenant.docker("run", "--rm", *LIMITS, private, "cat", "/version") == "9"
    await tenant.docker("rmi", private)
    await tenant.docker("logout", host)
    await closed("pull")


async def test_a_registry_of_an_unknown_authority_says_where_to_put_its_certificate(
    bare_tenant: Tenant, private: str, tmp_path: Path, folder: Path
) -> None:
    host = private.partition("/")[0]
    trusted = folder / "certs.d" / host / "ca.crt"
    trusted.parent.mkdir(parents=True)
    trusted.write_bytes(Authority(tmp_path).file.read_bytes())
    for words in (("pull", private), ("run", *LIMITS, private), ("login", "-u", USER, "-p", PASSWORD, host)):
        said = await bare_tenant.refused(*words)
        assert f"the certificate of {host} is not to be trusted" in said
        assert str(trusted) in said


def docker_py_pull(tenant: Tenant, name: str) -> list[dict[str, Any]]:
    client = docker.APIClient(base_url=f"unix://{tenant.socket}", version="auto", timeout=60)
    with contextlib.closing(client):
        return list(client.pull(name, stream=True, decode=True))


async def test_progress_is_told_in_the_engines_words(tenant: Tenant, shelf: Shelf) -> None:
    """As clients draw their bars from it: what each layer goes through, and numbers that end at the total."""
    lines = await asyncio.to_thread(docker_py_pull, tenant, shelf.app())
    assert (lines[0]["status"], lines[0]["id"]) == ("Pulling from tests/app", "1")
    told = [line["status"] for line in lines if "id" in line]
    for status in ("Pulling fs layer", "Download complete", "Extracting", "Pull complete"):
        assert status in told, told
    assert lines[-2]["status"].startswith("Digest: sha256:")
    assert lines[-1]["status"] == f"Status: Downloaded newer image for {shelf.app()}"
    for line in lines:
        if detail := line.get("progressDetail"):
            assert 0 < detail["current"] <= detail["total"]


COMPOSE = """
services:
  web:
    image: {image}
    command: cat /version
    mem_limit: 32m
    cpus: 0.2
"""


async def test_compose_pulls_what_it_needs(
    request: pytest.FixtureRequest, tenant: Tenant, shelf: Shelf, folder: Path, docker_config: Path
) -> None:
    """Its newest generation without an engine, the one before with one."""
    (folder / "compose.yaml").write_text(COMPOSE.format(image=shelf.app("2")))
    words = ("-f", str(folder / "compose.yaml"), "-p", "shop", "up", "--exit-code-from", "web")
    if "own" in request.node.name:
        done = await tenant.tried("compose", *words)
    else:
        done = await tenant.tried(*words, program=str(docker_config.parent / "compose1" / "docker-compose"))
    assert done.code == 0, done
    assert re.search(r"web.*\|\S* 2", done.out), done


async def test_what_is_pushed_can_be_pulled(
    engine_tenant: Tenant, shelf: Shelf, lab: Lab, folder: Path
) -> None:
    """With an engine only: it pushes, and we relay."""
    name = shelf.app("pushed")
    await engine_tenant.docker("tag", IMAGE, name)
    said = await engine_tenant.docker("push", name)
    assert "digest: sha256:" in said
    await engine_tenant.docker("rmi", name)
    assert await engine_tenant.docker("run", "--rm", *LIMITS, name, "echo", "back") == "back"


async def test_a_push_without_an_engine_says_what_to_do(bare_tenant: Tenant, shelf: Shelf) -> None:
    await bare_tenant.docker("pull", shelf.app())
    assert "no local Docker engine" in await bare_tenant.refused("push", shelf.app())
