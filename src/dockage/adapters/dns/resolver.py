"""Somebody's recursive resolver, asked with dnspython (extra ``gateway``): it holds answers against questions."""

from __future__ import annotations

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from dockage.domain.errors import Unavailable

WAIT_SEC = 3.0
TEXTS_MAX = 64
"""Records of one name that are looked at."""


class DnsResolver:
    """A Resolver at *host*, *port*: UDP, and TCP where an answer is cut off."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    async def texts(self, name: str) -> tuple[str, ...]:
        found = await self._ask(name, dns.rdatatype.TXT)
        strings = [b"".join(record.strings) for record in found][:TEXTS_MAX]
        return tuple(text.decode("ascii", "replace") for text in strings)

    async def alias(self, name: str) -> str | None:
        found = await self._ask(name, dns.rdatatype.CNAME)
        return next((record.target.to_text(omit_final_dot=True).lower() for record in found), None)

    async def _ask(self, name: str, kind: dns.rdatatype.RdataType) -> dns.rrset.RRset | tuple[()]:
        try:
            query = dns.message.make_query(name, kind)
            answer, _ = await dns.asyncquery.udp_with_fallback(
                query,
                self._host,
                timeout=WAIT_SEC,
                port=self._port,
                ignore_unexpected=True,  # what somebody else slips in
                ignore_errors=True,
            )
            if answer.rcode() == dns.rcode.NXDOMAIN:
                return ()
            if answer.rcode() != dns.rcode.NOERROR:
                raise Unavailable("dns.failed", f"{name}: {dns.rcode.to_text(answer.rcode())}")
            return answer.resolve_chaining().answer or ()
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise Unavailable("dns.silent", f"the resolver does not answer for {name}: {error}") from error
