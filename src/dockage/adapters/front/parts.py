"""What the handlers work with."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from dockage.ports.machine import Clock

from .books import Books
from .changes import Changes
from .engines import LeaseEngines
from .hub import EventHub
from .local import LocalEngine
from .placing import Placing
from .published import Published
from .tenancy import Tenancy
from .watch import Watch

EXECS_MAX = 4096


@dataclass(frozen=True)
class Parts:
    books: Books
    engines: LeaseEngines
    local: LocalEngine
    published: Published
    hub: EventHub
    watch: Watch
    tenancy: Tenancy
    placing: Placing
    clock: Clock
    changes: Changes
    execs: OrderedDict[str, str] = field(default_factory=OrderedDict)
    """Exec id to the container it was made in; the oldest are forgotten first."""

    def remember_exec(self, exec_id: str, container: str) -> None:
        self.execs[exec_id] = container
        while len(self.execs) > EXECS_MAX:
            self.execs.popitem(last=False)
