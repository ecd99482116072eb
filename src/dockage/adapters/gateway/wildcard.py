"""The certificate of ``*.<zone>``, by ACME's DNS-01 (RFC 8555 §8.4): our own name server shows the proof.

What is kept is one PEM file, key and chain, that the face reads at each handshake (``face.py``): a new one counts at
once and no connection is cut. A certificate for each name would meet Let's Encrypt's limit of 50 a week and zone.
"""

from __future__ import annotations

import asyncio
import datetime
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import josepy
import requests
import structlog
from acme import challenges, client, errors, messages
from acme.crypto_util import make_csr
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL.crypto import Error as OpenSslError

from dockage.domain.errors import Unavailable
from dockage.domain.units import SECOND
from dockage.ports.machine import Clock

from .face import Certificates, wildcard_file

log = structlog.get_logger("dockage.gateway")

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
LOOK_SEC = 3600.0
AGAIN_SEC, AGAIN_MAX_SEC = 60.0, 4 * 3600.0
"""After a failure, doubled with each: an authority takes five failures an hour."""
CALL_SEC = 20
"""For one answer of the authority."""
POLL_SEC, POLLS = 1.0, 60
BROKEN = (
    errors.Error,
    messages.Error,
    josepy.errors.Error,
    requests.RequestException,
    OpenSslError,
    OSError,
    ValueError,
)

Prove = Callable[[Collection[str]], None]
"""Shows these TXT values at ``_acme-challenge.<zone>``, and no others."""


class Wildcard:
    def __init__(
        self, folder: Path, zone: str, certificates: Certificates, prove: Prove, clock: Clock
    ) -> None:
        self._folder, self._name, self._prove, self._clock = folder, f"*.{zone}", prove, clock
        self._told = certificates
        self.file = wildcard_file(folder)
        self.trouble = ""
        """Why there is no new one."""

    async def run(self) -> None:
        """Until cancelled."""
        failures = 0
        while True:
            try:
                if self.is_due():
                    await self.renew()
                failures, self.trouble = 0, ""
                await asyncio.sleep(LOOK_SEC)
            except Unavailable as error:
                self.trouble = error.message
                log.warning("gateway.wildcard", name=self._name, why=error.message)
                await asyncio.sleep(min(AGAIN_MAX_SEC, AGAIN_SEC * 2**failures))
                failures = min(failures + 1, 8)

    def is_due(self) -> bool:
        """There is none, or two thirds of its life are over. One that is over is taken away, so that the face gets one
        for each name."""
        try:
            found = x509.load_pem_x509_certificates(self.file.read_bytes())[0]
        except (OSError, ValueError, IndexError):
            return True
        begins, ends = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
        now = self._clock.now() / SECOND
        if now >= ends:
            self.file.unlink()
        return now >= begins + (ends - begins) * 2 / 3

    async def renew(self) -> None:
        """A new one, whatever there is. Raises Unavailable("gateway.acme")."""
        try:
            authority = await asyncio.to_thread(self._enter)
            key = _new_key()
            order = await asyncio.to_thread(authority.new_order, make_csr(key, [self._name]))
            try:
                for each in order.authorizations:
                    await self._authorize(authority, each)
                chain = await self._finish(authority, order)
            finally:
                self._prove(())
            await asyncio.to_thread(_write, self.file, key + chain.encode())
        except BROKEN as error:
            raise Unavailable("gateway.acme", f"no certificate for {self._name}: {error}") from error
        log.info("gateway.wildcard", name=self._name)

    # -- a conversation in short calls, so that a stop does not wait for a thread ------------------------
    def _enter(self) -> Any:
        """The account is made with the first certificate; its key is beside it."""
        path = self._folder / "acme-account.key"
        if not path.exists():
            _write(path, _new_key())
        key = josepy.JWKEC.load(path.read_bytes())
        root: Any = self._told.acme_root or True
        net = client.ClientNetwork(
            key, alg=josepy.ES256, verify_ssl=root, user_agent="dockage", timeout=CALL_SEC
        )
        directory = client.ClientV2.get_directory(self._told.acme or LETS_ENCRYPT, net)
        authority = client.ClientV2(directory, net)
        who = {"email": self._told.email} if self._told.email else {}
        try:
            authority.new_account(messages.NewRegistration.from_data(**who, terms_of_service_agreed=True))
        except errors.ConflictError as known:
            net.account = messages.RegistrationResource(uri=known.location, body=messages.Registration())
        return authority

    async def _authorize(self, authority: Any, authorization: Any) -> None:
        if authorization.body.status == messages.STATUS_VALID:
            return
        offered = [x for x in authorization.body.challenges if isinstance(x.chall, challenges.DNS01)]
        if not offered:
            raise errors.Error("the authority offers no DNS-01")
        answer, proof = offered[0].response_and_validation(authority.net.key)
        self._prove((proof,))
        await asyncio.to_thread(authority.answer_challenge, offered[0], answer)
        for _ in range(POLLS):
            authorization, _ = await asyncio.to_thread(authority.poll, authorization)
            if authorization.body.status == messages.STATUS_VALID:
                return
            if authorization.body.status == messages.STATUS_INVALID:
                refused = [x.error for x in authorization.body.challenges if x.error is not None]
                raise errors.Error(f"the authority does not see the proof: {refused}")
            await asyncio.sleep(POLL_SEC)
        raise errors.Error("the authority did not look at the proof")

    async def _finish(self, authority: Any, order: Any) -> str:
        order = await asyncio.to_thread(authority.begin_finalization, order)
        for _ in range(POLLS):
            soon = datetime.datetime.now() + datetime.timedelta(seconds=2 * POLL_SEC)  # noqa: DTZ005, TID251 - its own
            try:
                return str((await asyncio.to_thread(authority.poll_finalization, order, soon)).fullchain_pem)
            except errors.TimeoutError:
                continue
        raise errors.Error("the authority did not finish")


def _new_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, secret: bytes) -> None:
    """Whole or not at all, for us alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(secret)
        out.flush()
        os.fsync(out.fileno())
    part.replace(path)
