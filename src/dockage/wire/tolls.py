"""A relay that is paid, lease by lease: whose datagrams it passes on, and at whose charge.

A lease is for its tenant's key alone, which is proven at the relay's door. Somebody without a lease may send to one who
has one, and hear from it; nothing passes between two who have none, and no byte is counted twice.
"""

from __future__ import annotations

from collections.abc import Callable

from dockage.domain.identity import LeaseId, NodeKey

from .places import PlaceHost

Count = Callable[[int], None]
TenantOf = Callable[[LeaseId], NodeKey | None]


class Account:
    """Bytes of datagrams for and from one lease's key, since the process began."""

    def __init__(self) -> None:
        self.came = self.went = 0

    def take(self, size: int) -> None:
        """From the key."""
        self.came += size

    def give(self, size: int) -> None:
        """For the key."""
        self.went += size


class TollHost(PlaceHost):
    def __init__(self, run: str, architecture: str) -> None:
        super().__init__("relay", run, architecture)
        self._tenant_of: TenantOf = lambda _: None
        self._accounts: dict[LeaseId, Account] = {}
        self._open: dict[NodeKey, Account] = {}
        """By key: the account of its oldest lease that runs."""
        self._frozen: frozenset[NodeKey] = frozenset()

    def connect(self, tenant_of: TenantOf) -> None:
        """Whose a lease is; before anything is prepared."""
        self._tenant_of = tenant_of

    # -- the relay asks --------------------------------------------------------------------------------
    def charge(self, sender: NodeKey, to: NodeKey) -> Count | None:
        """Who pays for a datagram: whom it is for, else who sent it; None: nobody, so it is not passed on."""
        account = self._open.get(to)
        if account is not None:
            return account.give
        account = self._open.get(sender)
        return account.take if account is not None else None

    def objection(self, key: NodeKey) -> str:
        """Why nothing is passed on for *key*; "" if it is."""
        if key in self._open:
            return ""
        return (
            "the lease is frozen until it is paid" if key in self._frozen else "there is no lease of this key"
        )

    # -- PlaceHost -------------------------------------------------------------------------------------
    def count(self, lease: LeaseId) -> tuple[int, int]:
        account = self._accounts.setdefault(lease, Account())
        return account.came, account.went

    def follow(self, lease: LeaseId) -> None:
        if lease not in self.places:
            self._accounts.pop(lease, None)
        self._open.clear()
        frozen = set[NodeKey]()
        for each, paused in self.places.items():
            key = self._tenant_of(each)
            if key is None or paused:
                frozen |= {key} if key else set()
            elif key not in self._open:
                self._open[key] = self._accounts.setdefault(each, Account())
        self._frozen = frozenset(frozen)
