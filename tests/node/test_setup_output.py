# ruff: noqa: F403, F405
"""The setup output: what a funding also pays a provider that sees nothing but its own wallet."""

from __future__ import annotations

import msgspec
import pytest

from dockage.domain.channel import SETUP_MAX, with_setup
from dockage.testing.playbook import Playbook, Refused
from node.parts import *

SETUP = b"\x51\x20" + bytes([9]) * 32
WANTS = msgspec.structs.replace(POLICY, setup_sat=Sat(330))
ACCEPTED = want.Send(TENANT, say.AcceptChannel(CHANNEL, PROVIDER_KEY, 1, SETUP, Sat(330)))


def proposed(setup: bytes = SETUP, **changes: Any) -> told.Received:
    return says(proposal(**changes), our_key=PROVIDER_KEY, our_setup=setup)


def accepts(script: bytes, sat: int) -> told.Received:
    return from_provider(say.AcceptChannel(CHANNEL, PROVIDER_KEY, 1, script, Sat(sat)))


def wanting(setup_sat: int) -> Any:
    """A tenant whose candidate's offer wants *setup_sat*."""
    one = candidate()
    plan = msgspec.structs.replace(one.plan, setup_sat=Sat(setup_sat))
    return quoted(msgspec.structs.replace(one, plan=plan), candidate(OTHER, CHANNEL2))


def test_a_provider_that_needs_one_says_where_and_how_much_and_keeps_to_it() -> None:
    mind = provider(WANTS)
    # Proposed again: the edge asks the wallet for no second address.
    assert Playbook(mind) >> proposed() << ACCEPTED >> proposed(b"") << ACCEPTED
    assert mind.state.channels[CHANNEL].terms == with_setup(terms(), SETUP, Sat(330))
    assert Playbook(mind) >> proposed(capacity=Sat(20_000)) << Refused("channel.taken")


def test_the_offer_says_so_unless_it_is_free() -> None:
    assert WANTS.offer(PROVIDER, LIMITS).setup_sat == 330
    assert msgspec.structs.replace(WANTS, tariff=FREE).offer(PROVIDER, LIMITS).setup_sat == 0
    absurd = msgspec.structs.replace(WANTS, setup_sat=Sat(SETUP_MAX + 1))
    assert not absurd.offer(PROVIDER, LIMITS).is_sane


def test_a_tenant_funds_what_was_agreed() -> None:
    assert (
        Playbook(wanting(330))
        >> accepts(SETUP, 330)
        << want.Fund(CHANNEL, with_setup(terms(), SETUP, Sat(330)))
    )


@pytest.mark.parametrize("listed", [0, 330])
def test_less_than_listed_is_welcome(listed: int) -> None:
    assert Playbook(wanting(listed)) >> accepts(b"", 0) << want.Fund(CHANNEL, terms())


@pytest.mark.parametrize(("listed", "wanted"), [(0, 330), (330, 331), (330, SETUP_MAX)])
def test_a_provider_that_wants_more_than_its_offer_says_gets_no_channel(listed: int, wanted: int) -> None:
    mind = wanting(listed)
    assert (
        Playbook(mind)
        >> accepts(SETUP, wanted)
        << want.Send(PROVIDER, say.CloseChannel(CHANNEL))
        << want.Send(OTHER, say.AskQuote(LEASE, LIMITS))
        >> accepts(SETUP, wanted)
    )
    assert mind.state.channels[CHANNEL].state is ChannelState.ABANDONED
    assert mind.state.leases[LEASE].refusals[-1][1].code == "channel.setup"
