"""Which replicas of a deployment gateways are to send requests to: the controller's stages, as documents have them.

Counterpart: ``domain/deployment.py``. The rule: what is lost gets nothing while another one can serve; a gateway sees
by itself who answers, so the last one is never taken out.
"""

from __future__ import annotations

from typing import NamedTuple

from dockage.domain.deployment import State
from dockage.domain.identity import LeaseId, NodeKey

from .kept import Deployment, Replica, Stage


class Shown(NamedTuple):
    lease: LeaseId
    provider: NodeKey
    state: State


def shown(of: Deployment) -> tuple[Shown, ...]:
    """By lease, so that nothing but a change looks like one."""
    able = any(x.stage is Stage.SERVING and not x.lost_at for x in of.replicas.values())
    coming = any(x.stage is Stage.STARTING for x in of.replicas.values())
    return tuple(
        Shown(lease, x.place.provider, _state(x, replaced=able or coming))
        for lease, x in sorted(of.replicas.items())
    )


def _state(x: Replica, *, replaced: bool) -> State:
    if x.lost_at and replaced:
        return "standby"
    match x.stage:
        case Stage.SERVING:
            return "serving"
        case Stage.DRAINING:
            return "draining"
        case _:
            return "standby"
