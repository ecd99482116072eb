"""Whose signature a registry's certificate may bear, by Docker's conventions.

The system's authorities (or those that ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` name), and what lies in the folder
``certs.d/HOST[:PORT]``: ``*.crt`` are authorities, ``NAME.cert`` with ``NAME.key`` is what we show. On this machine any
certificate will do, unless an authority is named.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path

import aiohttp
from yarl import URL

from dockage.domain.errors import UsageError

CERTS = (Path("/etc/docker/certs.d"), Path("~/.config/docker/certs.d"))
"""Where an engine's certificates are, and those of an engine without root."""
AUTHORITY, OURS, KEY = ".crt", ".cert", ".key"


class Trust:
    """For what one registry leads to: its token server and its store of blobs may be signed as it is itself."""

    def __init__(self, folders: Sequence[Path], registry: str) -> None:
        """*folders*: each a ``certs.d``; *registry*: as images are named after it."""
        self._folders, self._registry = folders, registry
        self._made: dict[tuple[str, bool], ssl.SSLContext] = {}

    def knows(self, host: str) -> bool:
        return any(True for _ in self._files(host))

    def context(self, url: URL) -> ssl.SSLContext:
        """Raises UsageError("registry.certificates") for files that are none."""
        host = place(url)
        own = host if self.knows(host) else ""
        lax = is_loopback(host) and not (own or self.knows(self._registry))
        if (own, lax) not in self._made:  # not one for each host: a hostile registry could name thousands
            self._made[own, lax] = self._make(own, lax)
        return self._made[own, lax]

    # -- within ------------------------------------------------------------------------------------
    def _make(self, own: str, lax: bool) -> ssl.SSLContext:
        if lax:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            return context
        context = ssl.create_default_context()
        for file in self._files(self._registry):
            if file.suffix == AUTHORITY:
                _load(context, file)
        for file in self._files(own):
            _load(context, file)
        return context

    def _files(self, host: str) -> Iterator[Path]:
        if host and "/" not in host and not host.startswith("."):
            for folder in self._folders:
                found = (folder.expanduser() / host).glob("*")
                yield from sorted(file for file in found if file.suffix in (AUTHORITY, OURS))


def place(url: URL) -> str:
    """``host`` or ``host:port``, as users write it."""
    return url.host_subcomponent or "" if url.is_default_port() else f"{url.host_subcomponent}:{url.port}"


def is_loopback(host: str) -> bool:
    name = URL(f"http://{host}").host or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def distrusted(error: aiohttp.ClientConnectorCertificateError, folders: Sequence[Path]) -> UsageError:
    """For whoever reads it: is the registry's owner to act, or the reader?"""
    folder = next(iter(folders), CERTS[0])
    host = place(URL.build(scheme="https", host=error.host, port=error.port))
    why = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
    return UsageError(
        "registry.certificate",
        f"the certificate of {host} is not to be trusted: {why}. If an authority of your own has signed it, put that "
        f"one's certificate at {folder / host / 'ca.crt'}; else its owner must renew it",
    )


def _load(context: ssl.SSLContext, file: Path) -> None:
    try:
        if file.suffix == AUTHORITY:
            context.load_verify_locations(file)
        else:
            # without a password it would ask for one, and nobody is there
            context.load_cert_chain(file, file.with_suffix(KEY), password="")
    except (OSError, ssl.SSLError) as error:
        why = f"{file} (or its key) cannot be used for TLS: {error}"
        raise UsageError("registry.certificates", why) from error
