"""A whole market on one machine, every part real and a process of its own: a regtest chain, market nodes,
providers, a tenant. The demo, the end-to-end tests and the benchmarks stand on it.

It uses two Docker engines, the tenant's and the providers', so that images really travel. ``close`` takes
everything down again, whatever happened before.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from devtools.regtest import Regtest, free_port
from devtools.shell import Failed, wait_until
from dockage.adapters.keys.files import FileKeys
from dockage.domain.pricing import PRESETS, Tariff

ROOT = Path(__file__).resolve().parent.parent.parent
START_SECONDS = 60
DOCKAGE = (sys.executable, "-m", "dockage.cli.main")
DOCTORED = (sys.executable, str(ROOT / "script" / "devtools" / "doctored.py"))
STOP_SECONDS = 20

EXAGGERATION = 100_000
"""Times the fair price, so that seconds are worth more than dust."""
DEMO_TARIFF = {name: EXAGGERATION * getattr(PRESETS["fair"], name) for name in Tariff.__struct_fields__}

GATEWAY_PATIENCE = 300
"""Seconds: on a busy machine a node takes long to start again, and a gateway that is given up is not asked soon."""
CHANNEL_SAT = 50_000
"""Up to this size one confirmation opens a channel; by the demo tariff it lasts a minute or two."""


class NodeProcess:
    """One ``dockage daemon`` with its own home; *program* is what else is to be started as one (doctored.py)."""

    def __init__(self, home: Path, config: str, program: Sequence[str] = DOCKAGE) -> None:
        self.home, self._program = home, program
        home.mkdir(mode=0o700)
        (home / "config.toml").write_text(config)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.home / "daemon.log"

    @property
    def docker_host(self) -> str:
        return f"unix://{self.home / 'docker.sock'}"

    def start(self) -> None:
        self.launch()
        self.wait()

    def launch(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._program, "--home", str(self.home), "daemon"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"DOCKAGE_LOG": "debug", **os.environ, "PYTHONFAULTHANDLER": "1"},
                start_new_session=True,
            )

    def wait(self) -> None:
        up = wait_until(lambda: self.is_up() or self.process_ended(), START_SECONDS)
        if not up or self.process_ended():
            tail = self.log.read_text(errors="replace")[-2000:]
            raise Failed(f"the node in {self.home} did not come up. Its last words:\n{tail}")

    def make_key(self) -> str:
        """As ``dockage id`` does, in this process: it spares an interpreter's start."""
        return FileKeys(self.home / "identity.key").node.hex()

    def process_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def is_up(self) -> bool:
        try:
            return bool(self.ask("GET", "/v1/status"))
        except (OSError, Failed):
            return False

    def kill(self) -> None:
        """SIGKILL: a crash."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def terminate(self) -> None:
        if not self.process_ended() and self.process is not None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        self.terminate()
        if self.process is None:
            return
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def ask(self, method: str, path: str, body: Any = None, seconds: float = 60) -> Any:
        """One call of the control API. Raises Failed with its message."""
        connection = UnixConnection(str(self.home / "control.sock"), seconds)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            response = connection.getresponse()
            answer = json.loads(response.read() or b"null")
        except TimeoutError:
            self.ask_where()
            raise
        finally:
            connection.close()
        if response.status >= 400:
            raise Failed(f"{answer['message']} ({answer['code']})")
        return answer

    def ask_where(self) -> None:
        """A node that does not answer says in its log where each of its threads is; that is its end."""
        if self.process is not None and not self.process_ended():
            self.process.send_signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)

    @property
    def key(self) -> str:
        return str(self.ask("GET", "/v1/status")["node"])


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class LocalMarket:
    """*prices* names the providers and says how each stands to the demo tariff, in percent; *regions* says where
    those are that are not where everybody looks."""

    def __init__(
        self,
        tenant_engine: str,
        provider_engine: str,
        prices: dict[str, int],
        market_nodes: int = 3,
        provider_extra: str = "",
        docker_config: Path | None = None,
        channel_sat: int = CHANNEL_SAT,
        linger_sec: float = 0.5,
        regions: dict[str, str] | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dkm-"))
        self._tenant_engine, self._provider_engine = tenant_engine, provider_engine
        self._prices, self._market_nodes = dict(prices), market_nodes
        self._provider_extra, self._docker_config = provider_extra, docker_config
        self._channel_sat, self._linger_sec = channel_sat, linger_sec
        self._regions = regions or {}
        self.chain = Regtest(f"unix://{tenant_engine}")
        self.markets: list[NodeProcess] = []
        self.providers: dict[str, NodeProcess] = {}
        self._mining: threading.Event | None = None

    # -- up ------------------------------------------------------------------------------------------
    def start(self) -> None:
        self.chain.start()
        self.seeds = self._start_markets()
        self.tenant = self._node("tenant", self._tenant_config())
        for name in self._prices:
            self.providers[name] = self._node(name, self._provider_config(name))
        together(self.tenant, *self.providers.values())

    def add_provider(self, name: str, engine: Path, percent: int) -> NodeProcess:
        """One more, on another engine."""
        self._prices[name] = percent
        node = self._node(name, self._provider_config(name).replace(self._provider_engine, str(engine)))
        self.providers[name] = node
        node.start()
        return node

    def add_gateway(self, name: str, section: str, percent: int = 100) -> NodeProcess:
        """A provider of names and ports; *section*: the lines of its ``[gateway]``."""
        self._prices[name] = percent
        node = self._node(name, f"{self._provider_config(name)}[gateway]\nenabled = true\n{section}")
        self.providers[name] = node
        node.start()
        return node

    def add_cheat(self, name: str, lie: str, percent: int, region: str) -> NodeProcess:
        """A provider that tells one of the lies of ``doctored.py``."""
        self._prices[name], self._regions[name] = percent, region
        node = NodeProcess(self.folder / name, self._provider_config(name), [*DOCTORED, lie])
        self.providers[name] = node
        node.start()
        return node

    def add_tenant(self, name: str) -> NodeProcess:
        """One that looks into its leases."""
        config = self._tenant_config().replace("checks = false", "checks = true")
        node = self._node(name, config.replace('bitcoind_wallet = "tenant"', f'bitcoind_wallet = "{name}"'))
        node.start()
        return node

    def remove_provider(self, name: str) -> None:
        node = self.providers.pop(name)
        with contextlib.suppress(OSError, Failed):
            wait_until(lambda: is_cleared(node), STOP_SECONDS, 0.1)
        node.stop()

    def _node(self, name: str, config: str) -> NodeProcess:
        return NodeProcess(self.folder / name, config)

    def _start_markets(self) -> list[str]:
        """Each is told of the first; a market node's key is known before it runs."""
        seeds: list[str] = []
        for n in range(self._market_nodes):
            bind = f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
            config = f'[node]\nbind = "{bind}"\nmarket = true\nseeds = {json.dumps(seeds[:1])}\n'
            node = self._node(f"market{n}", config + "[tenant]\nenabled = false\n")
            self.markets.append(node)
            seeds.append(f"{node.make_key()}@{bind}")
        together(*self.markets)
        return seeds

    def _provider_config(self, name: str) -> str:
        percent = self._prices[name]
        tariff = "".join(f"{line} = {price * percent // 100}\n" for line, price in DEMO_TARIFF.items())
        return (
            f'[node]\nbind = "127.0.0.1:0"\nseeds = {json.dumps(self.seeds)}\nstamp_bits = 8\n'
            f'[provider]\nenabled = true\nengine = "{self._provider_engine}"\n'
            f'region = "{self._regions.get(name, "earth")}"\n'
            f"cpu_milli = 4000\nmemory_mib = 2048\ndisk_mib = 8192\n{self._provider_extra}"
            f"[provider.tariff]\n{tariff}"
            "[tenant]\nenabled = false\n" + self.chain.config(name)
        )

    def _tenant_config(self) -> str:
        return (
            f'[node]\nbind = "127.0.0.1:0"\nseeds = {json.dumps(self.seeds)}\n'
            f'[tenant]\nengine = "{self._tenant_engine}"\nlinger_sec = {self._linger_sec}\nchecks = false\n'
            f"gateway_patience_sec = {GATEWAY_PATIENCE}\n"
            f"[channel]\nlargest_sat = {self._channel_sat}\n" + self.chain.config("tenant")
        )

    def fund_tenant(self, sat: int, tenant: NodeProcess | None = None) -> None:
        self.chain.give((tenant or self.tenant).ask("POST", "/v1/wallet/receive")["address"], sat)

    def wait_for_offers(self, count: int, seconds: float = 30) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []

        def enough() -> bool:
            nonlocal found
            try:
                found = self.tenant.ask("POST", "/v1/market", {})["offers"]
            except Failed:
                return False
            return len(found) >= count

        if not wait_until(enough, seconds, 0.2):
            raise Failed(f"only {len(found)} of {count} offers are on the market after {seconds:g} s")
        return found

    # -- blocks --------------------------------------------------------------------------------------
    def mine_every(self, seconds: float) -> None:
        """A block now and then, as on a real chain, until ``stop_mining``; none where nothing waits for one."""
        stop = self._mining = threading.Event()

        def mine() -> None:
            while not stop.wait(seconds):
                try:
                    self.chain.mine_what_waits()
                except (OSError, Failed):
                    continue

        threading.Thread(target=mine, daemon=True).start()

    def stop_mining(self) -> None:
        if self._mining is not None:
            self._mining.set()

    # -- use -----------------------------------------------------------------------------------------
    def docker(
        self, *arguments: str, seconds: float = 120, check: bool = True, tenant: NodeProcess | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The stock CLI against the tenant's socket."""
        environment = {**os.environ, "DOCKER_HOST": (tenant or self.tenant).docker_host}
        environment.pop("DOCKER_CONTEXT", None)
        if self._docker_config is not None:
            environment["DOCKER_CONFIG"] = str(self._docker_config)
        done = subprocess.run(
            ["docker", *arguments], env=environment, capture_output=True, text=True, timeout=seconds
        )
        if check and done.returncode:
            raise Failed(f"docker {' '.join(arguments)}: {(done.stderr or done.stdout).strip()[-800:]}")
        return done

    # -- down ----------------------------------------------------------------------------------------
    def end_leases(self) -> None:
        """A provider that merely stops leaves its leases for its next start: their walls would stay for ever."""
        with contextlib.suppress(OSError, Failed, AttributeError):  # the tenant may never have come up
            for lease in self.tenant.ask("GET", "/v1/spend")["leases"]:
                if lease["state"] != "ended":
                    self.tenant.ask("POST", f"/v1/leases/{lease['lease']}/end")
        for provider in self.providers.values():
            with contextlib.suppress(OSError, Failed):
                wait_until(lambda p=provider: is_cleared(p), STOP_SECONDS, 0.1)  # type: ignore[misc]

    def close(self) -> None:
        self.end_leases()
        self.stop_mining()
        nodes = [getattr(self, "tenant", None), *self.providers.values(), *self.markets]
        running = [node for node in nodes if node is not None]
        for node in running:
            node.terminate()
        for node in running:
            node.stop()
        self.chain.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def is_cleared(provider: NodeProcess) -> bool:
    """Whether nothing of any lease is left on the provider's machine."""
    return all(lease["state"] == "ended" for lease in provider.ask("GET", "/v1/earnings")["leases"])


def together(*nodes: NodeProcess) -> None:
    """Start them at once: each spends its first second importing."""
    for node in nodes:
        node.launch()
    for node in nodes:
        node.wait()
