"""How a changed service is rolled out: in compose's own words for it (``deploy.update_config``), with defaults of ours.

Counterpart: ``node/controller_rollout.py``. The one rule: with ``start-first`` nothing that serves stops before what
takes its place is well.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .units import MINUTE, SECOND, Duration

Order = Literal["start-first", "stop-first"]
OnFailure = Literal["rollback", "pause", "continue"]


class Update(msgspec.Struct, frozen=True):
    """What our user wants (labels ``dockage.update-*``)."""

    order: Order = "start-first"
    parallelism: int = 1
    """So many replicas at a time, after the first one; 0 = all at once."""
    delay: Duration = Duration(0)
    """Between two batches."""
    monitor: Duration = Duration(5 * SECOND)
    """How long each must serve before the next one."""
    within: Duration = Duration(2 * MINUTE)
    """How long each may take to be well."""
    on_failure: OnFailure = "rollback"
