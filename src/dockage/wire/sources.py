"""Where strangers come from, and how often: an address costs something, a key costs nothing."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

from .bucket import Bucket


def source_of(host: str) -> str:
    """The address; of IPv6 the /64, which is what one customer gets. Anything else is its own source."""
    try:
        address = ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped else (address.packed[:8]).hex()
    return str(address)


class Rates:
    """One bucket a source; the longest unused is forgotten first, which gives its source a full one again."""

    def __init__(self, rate: float, burst: float, remembered: int) -> None:
        self._rate, self._burst, self._remembered = rate, burst, remembered
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def spend(self, source: str, now: float, keep: float = 0) -> bool:
        return self.of(source, now).spend(now, keep=keep)

    def of(self, source: str, now: float) -> Bucket:
        bucket = self._buckets.pop(source, None) or Bucket(self._rate, self._burst, now)
        self._buckets[source] = bucket
        if len(self._buckets) > self._remembered:
            self._buckets.popitem(last=False)
        return bucket
