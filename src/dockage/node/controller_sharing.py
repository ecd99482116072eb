"""Deployments that somebody else may act for, too: whose the term is, as a controller knows it.

Part of ``controller.py``. A tenant asks its deputy for the term again and again (``domain/term.py``); a deputy is its
own witness, so that its own term has no end until it gives it away.
"""

from __future__ import annotations

from msgspec.structs import replace

from dockage.domain import term as terms
from dockage.domain.reason import Reason
from dockage.domain.units import Instant

from . import controller_words as say
from .kept import NO_TERM, Controller, Deployment, put

NOT_OURS = Reason(
    "controller.term",
    "its deputy acts for it, or does not answer: until it is known which, nothing is replaced from here",
)


def on_charged(state: Controller, event: say.Charged) -> Controller:
    of = state.deployments.get(event.deployment)
    if of is None:
        of = Deployment(event.deployment, wanted=event.goal.replicas, label=event.goal.replicas)
    if of.label != event.goal.replicas:  # by the label, or by the hours of dockage.schedule
        of = replace(of, label=event.goal.replicas, wanted=event.goal.replicas)
    state = put(state, replace(of, goal=event.goal, shared=True, charge=True, term=event.epoch))
    return replace(state, terms={**state.terms, event.deployment: terms.SOLE})


def on_asked(state: Controller, name: str, epoch: int, now: Instant) -> Controller:
    asked = terms.ask(state.terms.get(name, NO_TERM), epoch, now)
    return replace(state, terms={**state.terms, name: asked})


def on_granted(state: Controller, event: say.TermGranted) -> tuple[Controller, tuple[say.AnyWant, ...]]:
    """With a term of a new epoch whatever was granted in an older one is void."""
    name, before = event.deployment, state.terms.get(event.deployment, NO_TERM)
    after = terms.granted(before, event.by, event.epoch, event.asked_at, event.witnesses)
    state = replace(state, terms={**state.terms, name: after})
    of = state.deployments.get(name)
    if of is None or after.until == before.until or after.epoch == of.term:
        return state, ()
    of = replace(of, epoch=of.epoch + 1, term=after.epoch)
    fences = tuple(say.LiftFence(name, lease) for lease in of.replicas)
    return put(state, of), (*fences, say.Publish(name))


def lost(state: Controller, name: str) -> Controller:
    return replace(state, terms={k: x for k, x in state.terms.items() if k != name})


def marked(state: Controller, of: Deployment, now: Instant) -> Deployment:
    """For our user: why nothing is done."""
    if not state.acts(of, now):
        return of if of.hindrance == NOT_OURS else replace(of, hindrance=NOT_OURS)
    return replace(of, hindrance=None) if of.hindrance == NOT_OURS else of
