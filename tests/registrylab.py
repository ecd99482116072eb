"""Debian's docker-registry on loopback, in the network namespace of the calling thread: one that is open to all, or one
that asks for ``USER`` and ``PASSWORD``, behind TLS. What it keeps is gone with it.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import DEV

PROGRAM = DEV / "registry" / "docker-registry"
USER, PASSWORD = "ann", "open sesame"
HTPASSWD = f"{USER}:$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n"
"""The password by bcrypt, the only form that the registry takes."""
CONFIG = """
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {folder}/blobs}}, delete: {{enabled: true}}}}
http:
  addr: "{address}"
  secret: of the tests
"""
TLS = "  tls: {{certificate: {tls}, key: {tls}}}\n"
AUTH = "auth: {{htpasswd: {{realm: the tests, path: {folder}/htpasswd}}}}\n"
START_SECONDS = 60


@contextlib.contextmanager
def registry(private: Path | None = None) -> Iterator[str]:
    """Its ``host:port``. *private*: a certificate with its key, and it asks who comes. Skips the test where
    script/setup could not get the program."""
    if not PROGRAM.exists():
        pytest.skip("no docker-registry: run script/setup")
    folder = Path(tempfile.mkdtemp(prefix="dk-registry-"))
    address = f"127.0.0.1:{_free_port()}"
    (folder / "htpasswd").write_text(HTPASSWD)
    text = (CONFIG + (TLS + AUTH if private else "")).format(folder=folder, address=address, tls=private)
    (folder / "config.yml").write_text(text)
    with (folder / "log").open("wb") as log:
        command = [PROGRAM, "serve", folder / "config.yml"]
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        _wait_until_it_answers(address, process, folder / "log")
        yield address
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder)


def _wait_until_it_answers(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    host, _, port = address.partition(":")
    for _ in range(START_SECONDS * 20):
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"the registry does not answer: {log.read_text()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
