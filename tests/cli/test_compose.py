"""A compose project as the market is asked about it. docker compose itself reads the files; no engine is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dockage.cli import compose, docker, reserved
from dockage.cli.commands import up
from dockage.cli.errors import UsageError
from dockage.cli.process import wait_until
from dockage.cli.session import Session
from dockage.cli.telling import telling
from dockage.domain.resources import DEFAULT_CONTAINER, Resources
from dockage.domain.units import GIB, MIB

from .conftest import Call, value
from .parts import served

SHOP = """
name: shop
services:
  web:
    image: a
    cpus: 0.25
    mem_limit: 300m
    scale: 2
    labels: {dockage.region: earth, other: x}
    ports: ["8080:80"]
  db:
    image: b
    deploy: {replicas: 3, resources: {limits: {cpus: "0.5", memory: 64M}}}
    volumes: [data:/d]
  bare: {image: c}
volumes: {data: {driver_opts: {size: 5g}}}
"""


@pytest.fixture
def shop(tmp_path: Path, docker_config: Path, monkeypatch: pytest.MonkeyPatch) -> compose.Files:
    monkeypatch.setenv("DOCKER_CONFIG", str(docker_config))
    return written(tmp_path, SHOP)


def written(folder: Path, text: str) -> compose.Files:
    (folder / "compose.yaml").write_text(text)
    return compose.files([str(folder / "compose.yaml")], None, (), ())


def test_a_project_needs_the_sum_of_its_containers(shop: compose.Files) -> None:
    project = compose.read(shop)
    assert (project.name, project.services) == ("shop", {"web": 2, "db": 3, "bare": 1})
    assert project.need == Resources(
        2 * 250 + 3 * 500 + DEFAULT_CONTAINER.cpu_milli,
        (2 * 300 + 3 * 64) * MIB + DEFAULT_CONTAINER.memory_bytes,
        6 * DEFAULT_CONTAINER.disk_bytes + 5 * GIB,
    )
    assert project.labels == {"dockage.region": "earth"}


RESERVED = """
name: shop
services:
  web:
    image: a
    labels: {dockage.reserved-cpus: "0.25", dockage.region: earth}
    deploy: {replicas: 2, resources: {limits: {cpus: "2", memory: 512M}, reservations: {memory: 128M}}}
  db: {image: b, cpus: 1, mem_limit: 64m, mem_reservation: 32m}
"""


def test_less_may_be_reserved_than_the_limits(shop: compose.Files, tmp_path: Path) -> None:
    project = compose.read(written(tmp_path, RESERVED))
    assert project.need.hard == Resources(5000, (2 * 512 + 64) * MIB, 3 * DEFAULT_CONTAINER.disk_bytes)
    assert (project.need.reserved.cpu_milli, project.need.reserved.memory_bytes) == (1500, 288 * MIB)
    question = project.question()
    assert (question["cpu_soft_milli"], question["memory_soft_bytes"]) == (3500, 800 * MIB)
    assert project.labels == {"dockage.region": "earth"}  # the other one is the service's own


SOFT = """
services:
  web: {image: a, deploy: {resources: {limits: {cpus: "2"}, reservations: {cpus: "0.5"}}}}
  db: {image: b, deploy: {resources: {reservations: {cpus: 0.25}}}, labels: {dockage.reserved-cpus: "0.125"}}
  bare: {image: c}
"""


@pytest.mark.parametrize("told", [True, False])
def test_compose_s_own_reservation_becomes_the_label(
    shop: compose.Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """Also where compose finds the files itself, an override among them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compose.override.yaml").write_text("services: {bare: {environment: {seen: yes}}}")
    files = written(tmp_path, SOFT) if told else compose.files((), None, (), ())
    written(tmp_path, SOFT)
    project = compose.read(files)
    assert project.need.reserved.cpu_milli == 500 + 125 + DEFAULT_CONTAINER.cpu_milli
    assert project.reserved == {"web": "0.500"}
    with reserved.labelled(files, project.reserved) as more:
        merged = json.loads(more.ask("config", "--format", "json"))
    services = merged["services"]
    assert merged["name"] == project.name
    assert services["web"]["labels"] == {"dockage.reserved-cpus": "0.500"}
    assert services["db"]["labels"] == {"dockage.reserved-cpus": "0.125"}
    assert ("environment" in services["bare"]) == (not told), (
        "the override counts where compose would take it"
    )
    with reserved.labelled(files, {}) as same:
        assert same == files


@pytest.mark.parametrize("cores", ["a", "-1", "1e3", ".5", "0.2501", "12345", "٣"])
def test_what_is_no_number_of_cores_is_refused(shop: compose.Files, tmp_path: Path, cores: str) -> None:
    with pytest.raises(UsageError) as caught:
        compose.read(written(tmp_path, RESERVED.replace("0.25", cores)))
    assert caught.value.code == "label.number"


def test_only_the_services_asked_for_count(shop: compose.Files) -> None:
    assert compose.read(shop, ["bare"]).need == DEFAULT_CONTAINER


def test_services_that_wish_differently_are_refused(shop: compose.Files, tmp_path: Path) -> None:
    files = written(
        tmp_path, SHOP.replace("bare: {image: c}", "bare: {image: c, labels: {dockage.region: moon}}")
    )
    with pytest.raises(UsageError) as caught:
        compose.read(files)
    assert caught.value.code == "label.conflict"


def test_a_volume_that_cannot_be_had_is_refused_before_anything_is_paid(
    shop: compose.Files, tmp_path: Path
) -> None:
    files = written(tmp_path, SHOP.replace("size: 5g", "device: /etc, type: none, o: bind"))
    with pytest.raises(UsageError) as caught:
        compose.read(files)
    assert caught.value.code == "volume.refused"


@pytest.mark.usefixtures("docker_config")
def test_what_compose_says_about_the_file_is_passed_on(shop: compose.Files, tmp_path: Path) -> None:
    for text in ("services: {web: {imagine: x}}", "services: [", "name: x\nservices: {}"):
        with pytest.raises(UsageError) as caught:
            compose.read(written(tmp_path, text))
        assert caught.value.code in ("docker.failed", "compose.empty")


def test_without_docker_or_compose_it_says_what_to_install(
    shop: compose.Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "nothing"))
    with pytest.raises(UsageError) as caught:
        compose.read(shop)
    assert caught.value.code in ("compose.missing", "docker.failed")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError) as caught:
        compose.read(shop)
    assert caught.value.code == "docker.missing"


def test_the_tenants_other_engine_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "elsewhere")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    env = docker.environment("/home/me/docker.sock")
    assert env["DOCKER_HOST"] == "unix:///home/me/docker.sock"
    assert not {"DOCKER_CONTEXT", "DOCKER_TLS_VERIFY"} & env.keys()


# -- the quote ---------------------------------------------------------------------------------------
FITS = "name: {name}\nservices: {{web: {{image: a, cpus: 0.5, mem_limit: 256m}}}}\n"


def test_up_shows_the_price_first(call: Call, home: Path, shop: compose.Files, tmp_path: Path) -> None:
    """Nobody listens on the docker socket here: compose fails, after the quote."""
    files = written(tmp_path, FITS.format(name="new"))
    with served(home, bitcoin={"network": "regtest"}):
        done = call("up", *files.words, "-y")
    assert done.exit_code == 1
    assert done.stderr.startswith(
        "deployment  new: 1 container, 0.5 cores, 256 MiB memory, 1 GiB disk\n"
        "provider    8a2f1a73 (1 other would do)\n"
        "where       earth, x86_64; opacity open, isolation container\n"
        "price       at most 5.1 sat/h (3,672 sat a month), network aside; you pay for what is used\n"
        "usually     0.91 sat/h: a tenth of its CPU, half its memory\n"
        "channel     no new one is needed\n"
    )
    assert done.stderr.endswith("nothing was rented for it\n"), "so there is nothing to ask why of"


def test_a_deployment_that_runs_goes_on_in_its_lease(
    call: Call, home: Path, shop: compose.Files, tmp_path: Path
) -> None:
    with served(home, bitcoin={"network": "regtest"}):
        done = call("up", *written(tmp_path, FITS.format(name="shop")).words, "-y")
    assert "lease       11111111 at 8a2f1a73, running" in done.stderr
    assert "so far 5.1 sat/h" in done.stderr
    assert "until now   7.446 sat/h on average, 1.241 sat due" in done.stderr
    assert done.stderr.endswith("`dockage why shop` may tell more\n")


def test_a_scaled_service_is_quoted_as_often_as_it_runs(
    call: Call, home: Path, shop: compose.Files, tmp_path: Path
) -> None:
    files = written(tmp_path, FITS.format(name="new"))
    assert compose.read(files, scale={"web": 3}).need.cpu_milli == 1500
    assert compose.read(files, scale={"web": 0}).need.cpu_milli == 0
    with served(home, bitcoin={"network": "regtest"}):
        done = call("up", *files.words, "-d", "-y", "--scale", "web=3")
        assert "new: 3 containers, 1.5 cores" in done.stderr
        assert call("up", *files.words, "--scale", "db=2").stderr.endswith("(compose.scale)\n")
    assert call("up", "--scale", "web").exit_code == 2


def test_a_quote_says_what_the_chain_takes(shop: compose.Files) -> None:
    quote = {
        "provider": "8a" * 32, "alternatives": 0, "msat_hour_max": 5_100, "msat_hour_usual": 910, "region": "earth",
        "architecture": "x86_64", "opacity": "open", "isolation": "container", "replicas": 1, "standby": 0,
        "gateways": 0, "gateways_found": 0, "channel_sat": 50_000, "settlement_overhead_sat": 620, "feerate": 2_000,
    }  # fmt: skip
    told = up.quoted(compose.read(shop), quote)
    assert "a new one of 50,000 sat; opening and closing it costs about 620 sat (1.2 %) at 2 sat/vB" in told


def test_what_is_done_meanwhile_is_said(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dockage.cli.telling.POLL_SEC", 0.1)
    with served(home) as node:
        node.steps.tell("other", "sending image b")
        node.steps.tell("shop", "sending image a: 3 of 9 MiB")
        with telling(Session(home), "shop"):
            assert wait_until(lambda: capsys.readouterr().err == "sending image a: 3 of 9 MiB\n", 60)


def test_up_says_why_nothing_fits_and_starts_nothing(
    call: Call, home: Path, shop: compose.Files, tmp_path: Path
) -> None:
    files = written(tmp_path, FITS.format(name="big").replace("0.5", "64"))
    with served(home, bitcoin={"network": "regtest"}):
        done = call("up", *files.words, "--json")
    assert (done.exit_code, done.stdout) == (1, "")
    assert json.loads(done.stderr)["code"] == "market.nothing-fits"


# -- how containers are ------------------------------------------------------------------------------
def container(service: str, state: str, health: str = "", code: int = 0, **more: object) -> dict[str, object]:
    return {"Service": service, "State": state, "Health": health, "ExitCode": code, **more}


def test_waiting_is_for_what_can_still_come_up() -> None:
    there = [
        container("up", "running"),
        container("well", "running", "healthy"),
        container("job", "exited"),
        container("slow", "running", "starting"),
        container("again", "restarting"),
        container("night", "created", Status="Created, sleeps until 08:00 UTC"),
        container("day", "exited", code=137, Status="Exited (137), sleeps until 08:00 UTC"),
    ]
    assert compose.pending(there) == ["again", "slow"]
    assert compose.failed(there) == []


def test_failures_are_named() -> None:
    there = [container("a", "exited", code=3), container("b", "running", "unhealthy")]
    assert compose.failed(there) == ["a exited with 3", "b is unhealthy"]


def test_urls_are_what_this_machine_can_open() -> None:
    publishers = [
        {"URL": "0.0.0.0", "TargetPort": 80, "PublishedPort": 8080, "Protocol": "tcp"},
        {"URL": "::", "TargetPort": 80, "PublishedPort": 8080, "Protocol": "tcp"},
        {"URL": "::1", "TargetPort": 81, "PublishedPort": 8081, "Protocol": "tcp"},
        {"URL": "", "TargetPort": 82, "PublishedPort": 0, "Protocol": "tcp"},
    ]
    urls = [url["url"] for url in compose.urls([container("web", "running", Publishers=publishers)])]
    assert urls == ["http://127.0.0.1:8080", "http://[::1]:8081"]


# -- the context -------------------------------------------------------------------------------------
def test_a_docker_context_is_made_and_brought_up_to_date(
    call: Call, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker.program()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for _ in range(2):
        made = value(call("context", "--json"))
        assert made == {"context": "dockage", "host": f"unix://{home}/docker.sock", "current": False}
    inspected = json.loads(docker.ask(["context", "inspect", "dockage"], docker.environment()))
    assert inspected[0]["Endpoints"]["docker"]["Host"] == f"unix://{home}/docker.sock"
    assert value(call("context", "--use", "--json"))["current"] is True
    assert docker.ask(["context", "show"], docker.environment()).strip() == "dockage"


@pytest.mark.usefixtures("shop")
def test_each_service_says_itself_what_of_it_is_public(tmp_path: Path) -> None:
    labels = "labels: {dockage.public: %s, dockage.gateways: 2}"
    text = f"name: s\nservices:\n  a: {{image: a, {labels % 80}}}\n  b: {{image: b, {labels % '22/tcp'}}}\n"
    project = compose.read(written(tmp_path, text + "  c: {image: c}\n"))
    assert (project.public, project.gateways) == (("a", "b"), 2)
    assert project.question()["labels"] == {"dockage.gateways": "2"}
    with pytest.raises(UsageError) as caught:
        compose.read(written(tmp_path, text.replace("dockage.public: 80", "dockage.host: a.example.org")))
    assert caught.value.code == "label.host"


def test_composes_own_words_for_an_update_become_labels() -> None:
    given = {
        "order": "stop-first",
        "parallelism": 2,
        "delay": "1m30s",
        "failure_action": "pause",
        "monitor": "0s",
    }
    found = compose.update({"db": {}, "web": {"deploy": {"update_config": given}}})
    assert found == {
        "dockage.update-order": "stop-first",
        "dockage.update-parallelism": "2",
        "dockage.update-delay": "90",
        "dockage.update-failure": "pause",
        "dockage.update-monitor": "0",
    }
    assert compose.update({"web": {"deploy": {}}}) == {}


def test_a_strange_duration_is_told() -> None:
    with pytest.raises(UsageError, match="web: update_config"):
        compose.update({"web": {"deploy": {"update_config": {"delay": "soon"}}}})
