"""A registry, as a client that believes none of it. Counterpart: ``protocol/registry.py``.

As Docker does: https (``trust.py`` says with whose certificate), but on loopback plain http will do; credentials go to
the registry and to the token server that it names, which must be as private; what it redirects elsewhere (a store of
blobs) is asked without them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import aiohttp
from yarl import URL

from dockage.domain.errors import DockageError, PeerError, Unavailable, UsageError
from dockage.protocol import registry
from dockage.protocol.registry import Blob, Challenge, Credentials, Reference

from .trust import Trust, distrusted, is_loopback

CONNECT, SILENCE = 15.0, 60.0
"""Seconds to reach it; seconds without a byte."""
MOVES_MAX = 5
SMALL = 1 << 20
"""Bytes of an error or a token."""
MOVED = (301, 302, 303, 307, 308)
PIECE = 1 << 18
Headers = dict[str, str]


class Found(NamedTuple):
    body: bytes
    digest: str


class Registry:
    """One repository, for one user, for as long as the block lasts."""

    def __init__(
        self, wanted: Reference, credentials: Credentials, certs: Sequence[Path], silence: float = SILENCE
    ) -> None:
        """*certs*: folders as Docker's ``certs.d``; the first is where our user is told to put what is missing."""
        self._wanted, self._credentials = wanted, credentials
        self._certs, self._trust = certs, Trust(certs, wanted.host)
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=silence)
        self._authorization = ""
        if credentials.registrytoken:
            self._authorization = f"Bearer {credentials.registrytoken}"

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=self._timeout,
            auto_decompress=False,
            skip_auto_headers=["Accept-Encoding"],  # what is hashed is what travels
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=not is_loopback(self._wanted.host),  # a company's proxy
        )
        try:
            self._base = await self._origin()
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def login(self) -> None:
        """Raises UsageError("registry.denied") if it does not take the credentials."""
        async with self._asked("/v2/", {}) as answer:
            await answer.read()

    async def manifest(self, version: str = "") -> Found:
        """Of a tag or a digest. Raises UsageError("registry.unknown" | "registry.denied"), PeerError, Unavailable."""
        version = version or self._wanted.version
        path = f"/v2/{self._wanted.repository}/manifests/{version}"
        async with self._asked(path, {"accept": registry.ACCEPT}) as answer:
            body = await _read(answer, registry.MANIFEST_MAX)
        if version.startswith("sha256:"):
            registry.check_hash(body, version, "manifest")
        return Found(body, registry.digest_of(body))

    async def small(self, blob: Blob, limit: int) -> bytes:
        """A blob that is kept in memory, checked."""
        if blob.size > limit:
            raise PeerError("registry.manifest", f"the registry names a config of {blob.size} bytes")
        body = b""
        async with self.blob(blob, 0) as (_, pieces):
            async for piece in pieces:
                body += piece
        registry.check_hash(body, blob.digest, "config")
        return body

    @asynccontextmanager
    async def blob(self, blob: Blob, offset: int) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """(where it begins, its bytes from there): at *offset* if the registry can, else at 0. What is more than
        announced is a PeerError; that it is all, and right, is for the caller to check."""
        headers = {"range": f"bytes={offset}-"} if offset else {}
        async with self._asked(f"/v2/{self._wanted.repository}/blobs/{blob.digest}", headers) as answer:
            begin = offset if answer.status == 206 else 0
            if begin and not answer.headers.get("content-range", "").startswith(f"bytes {begin}-"):
                raise PeerError(
                    "registry.lie", "the registry sent another part of a layer than it was asked for"
                )
            yield begin, _pieces(answer, blob.size - begin)

    # -- within ------------------------------------------------------------------------------------
    async def _origin(self) -> URL:
        """Docker's rule for registries on this machine: with TLS if they have it."""
        secure = URL(f"https://{self._wanted.host}")
        if not is_loopback(self._wanted.host) or self._trust.knows(self._wanted.host):
            return secure
        tls = await self._tls(secure)
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self._session.get(secure / "v2/", allow_redirects=False, ssl=tls):
                return secure
        return secure.with_scheme("http")

    async def _tls(self, url: URL) -> ssl.SSLContext | bool:
        if url.scheme != "https":
            return True
        return await asyncio.to_thread(self._trust.context, url)  # it reads all the system's authorities

    @asynccontextmanager
    async def _asked(self, path: str, headers: Headers) -> AsyncIterator[aiohttp.ClientResponse]:
        """A good answer's head. What breaks, also while it is read, is Unavailable."""
        try:
            answer = await self._get(path, headers)
            async with answer:
                if answer.status not in (200, 206):
                    raise await self._refusal(answer)
                yield answer
        except aiohttp.ClientConnectorCertificateError as error:
            raise distrusted(error, self._certs) from error
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            why = f"the registry {self._wanted.host} does not answer: {str(error) or type(error).__name__}"
            raise Unavailable("registry.unreachable", why) from error

    async def _get(self, path: str, headers: Headers) -> aiohttp.ClientResponse:
        answer = await self._follow(path, headers)
        if answer.status == 401 and (asked := answer.headers.get("www-authenticate")):
            answer.release()
            self._authorization = await self._authorize(registry.challenge(asked))
            answer = await self._follow(path, headers)
        return answer

    async def _follow(self, path: str, headers: Headers) -> aiohttp.ClientResponse:
        url = URL(str(self._base) + path, encoded=True)
        for _ in range(MOVES_MAX + 1):
            at_home = url.origin() == self._base.origin()
            own = {"authorization": self._authorization} if at_home and self._authorization else {}
            tls = await self._tls(url)
            answer = await self._session.get(url, headers=headers | own, allow_redirects=False, ssl=tls)
            if answer.status not in MOVED:
                return answer
            answer.release()
            url = as_private(
                self._base, url.join(URL(answer.headers.get("location", ""), encoded=True)), "redirects"
            )
        raise PeerError("registry.moves", f"the registry redirects more than {MOVES_MAX} times")

    async def _authorize(self, asked: Challenge) -> str:
        """The header that answers *asked*; ``""`` where we have nothing to answer."""
        mine = self._credentials
        basic = mine.basic
        if asked.scheme != "bearer":
            return basic if asked.scheme == "basic" else ""
        url = as_private(self._base, URL(asked.realm), "wants tokens fetched")
        scope = asked.scope or f"repository:{self._wanted.repository}:pull"
        tls = await self._tls(url)
        query = {key: value for key, value in (("service", asked.service), ("scope", scope)) if value}
        if mine.identitytoken:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": mine.identitytoken,
                "client_id": "dockage",
                **query,
            }
            request = self._session.post(url, data=form, allow_redirects=False, ssl=tls)
        else:
            own = {"authorization": basic} if basic else {}
            request = self._session.get(url.update_query(query), headers=own, allow_redirects=False, ssl=tls)
        async with request as answer:
            if answer.status != 200:
                raise await self._refusal(answer)
            return f"Bearer {registry.token(await _read(answer, SMALL))}"

    async def _refusal(self, answer: aiohttp.ClientResponse) -> DockageError:
        said = registry.fault(await _read(answer, SMALL)) or f"status {answer.status}"
        name = self._wanted.name
        match answer.status:
            case 401 | 403 if not self._credentials.username:
                why = f"pull access denied for {name}, repository does not exist or may require 'docker login': {said}"
                return UsageError("registry.denied", why)
            case 401 | 403:
                return UsageError(
                    "registry.denied", f"{self._wanted.host} does not take these credentials: {said}"
                )
            case 404:
                return UsageError("registry.unknown", f"manifest for {self._wanted} not found: {said}")
            case _:
                return Unavailable("registry.failed", f"the registry {self._wanted.host} answers: {said}")


def as_private(base: URL, url: URL, does: str) -> URL:
    """*url*, to which the registry at *base* sends us: it must be as private as that is itself."""
    if url.scheme == "https" or (url.scheme == "http" and base.scheme == "http"):
        return url
    raise PeerError(
        "registry.moves", f"the registry {does} with {url.scheme or 'no scheme'}: not without TLS"
    )


async def _read(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """Raises PeerError("registry.oversized")."""
    body = bytearray()
    async for piece in answer.content.iter_chunked(PIECE):
        body += piece
        if len(body) > limit:
            raise PeerError(
                "registry.oversized", f"the registry sends more than {limit} bytes where that is too much"
            )
    return bytes(body)


async def _pieces(answer: aiohttp.ClientResponse, left: int) -> AsyncIterator[bytes]:
    async for piece in answer.content.iter_chunked(PIECE):
        left -= len(piece)
        if left < 0:
            raise PeerError("registry.oversized", "the registry sends more of a layer than it announced")
        yield piece
