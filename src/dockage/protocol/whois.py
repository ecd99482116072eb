"""Who are you? One datagram each way turns an address from a public DHT into a key. Spec: docs/spec/10-bootstrap.md.

The answer is a hint like any other: the handshake proves the key or the hint was false. An answer is shorter than its
question, so nobody can make us flood a third party; the nonce keeps away answers of those who did not see the question.
"""

from __future__ import annotations

import hashlib
from ipaddress import ip_address
from typing import NamedTuple

from dockage.domain.errors import PeerError
from dockage.domain.identity import NodeKey

QUESTION, ANSWER = b"dockage?", b"dockage!"
NONCE_BYTES = 16
TOPIC_BYTES = 20
QUESTION_BYTES = 128
ANSWER_BYTES = len(ANSWER) + NONCE_BYTES + TOPIC_BYTES + 32 + 2


class Introduction(NamedTuple):
    key: NodeKey
    port: int
    """Of the peer link, at the address that answered."""


def topic(network: str) -> bytes:
    """The infohash under which the market nodes of *network* announce themselves: the first 20 bytes of a SHA-256."""
    return hashlib.sha256(b"dockage/1/mainline\0" + network.encode()).digest()[:TOPIC_BYTES]


def question(topic_: bytes, nonce: bytes) -> bytes:
    return (QUESTION + nonce + topic_).ljust(QUESTION_BYTES, b"\0")


def read_question(data: bytes, topic_: bytes) -> bytes:
    """Its nonce. Raises PeerError("whois.malformed")."""
    nonce = data[len(QUESTION) : len(QUESTION) + NONCE_BYTES]
    if data != question(topic_, nonce):
        raise PeerError("whois.malformed", "not a question for this node's market")
    return nonce


def answer(topic_: bytes, nonce: bytes, me: Introduction) -> bytes:
    return ANSWER + nonce + topic_ + me.key + me.port.to_bytes(2, "big")


def read_answer(data: bytes, topic_: bytes, nonce: bytes) -> Introduction:
    """Raises PeerError("whois.malformed")."""
    head = ANSWER + nonce + topic_
    port = int.from_bytes(data[-2:], "big")
    if len(data) != ANSWER_BYTES or not data.startswith(head) or not port:
        raise PeerError("whois.malformed", "not an answer to our question")
    return Introduction(NodeKey(data[len(head) : len(head) + 32]), port)


def is_public(host: str) -> bool:
    """Whether a stranger may send us there: never into our own network."""
    try:
        return ip_address(host).is_global and not ip_address(host).is_multicast
    except ValueError:
        return False
