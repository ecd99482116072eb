"""Who are you? The answer is read by who asked, and by nobody else; it is never longer than the question."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.errors import PeerError
from dockage.domain.identity import NodeKey
from dockage.protocol import whois
from dockage.protocol.whois import Introduction

TOPIC, NONCE = whois.topic("main"), bytes(range(16))
ME = Introduction(NodeKey(bytes(range(32))), 4711)


def test_the_topic_is_that_of_the_page() -> None:
    """docs/spec/10-bootstrap.md."""
    assert TOPIC.hex() == "8592bca09595e89d4fd6f0b4c25612ba96b22feb"
    assert TOPIC != whois.topic("other")


def test_an_answer_is_for_one_question() -> None:
    assert whois.read_question(whois.question(TOPIC, NONCE), TOPIC) == NONCE
    answer = whois.answer(TOPIC, NONCE, ME)
    assert whois.read_answer(answer, TOPIC, NONCE) == ME
    for topic, nonce in ((TOPIC, bytes(16)), (whois.topic("other"), NONCE)):
        with pytest.raises(PeerError):
            whois.read_answer(answer, topic, nonce)
    with pytest.raises(PeerError):
        whois.read_question(whois.question(whois.topic("other"), NONCE), TOPIC)
    with pytest.raises(PeerError):
        whois.read_answer(whois.answer(TOPIC, NONCE, ME._replace(port=0)), TOPIC, NONCE)


def test_nobody_can_be_flooded_through_us() -> None:
    question, answer = whois.question(TOPIC, NONCE), whois.answer(TOPIC, NONCE, ME)
    assert len(answer) == whois.ANSWER_BYTES < len(question) == whois.QUESTION_BYTES
    for shorter in (question[:-1], question.rstrip(b"\0"), question + b"\0", b""):
        with pytest.raises(PeerError):
            whois.read_question(shorter, TOPIC)


@given(st.binary(max_size=200))
def test_strangers_bytes_break_nothing(data: bytes) -> None:
    with suppress(PeerError):
        whois.read_question(data, TOPIC)
    with suppress(PeerError):
        whois.read_answer(data, TOPIC, NONCE)


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("8.8.8.8", True),
        ("192.168.1.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("x", False),
    ],
)
def test_a_stranger_cannot_send_us_into_our_own_network(host: str, public: bool) -> None:
    assert whois.is_public(host) is public
