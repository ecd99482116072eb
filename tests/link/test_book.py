"""What the link remembers of peers is bounded, and a lie displaces nothing at once."""

from __future__ import annotations

import pytest

from dockage.adapters.link.book import AddressBook, Line, Switchboard, is_relay_url, is_socket_address
from dockage.domain.identity import NodeKey
from dockage.ports.peers import Address
from dockage.wire.limits import LinkLimits

A, B, C = (NodeKey(bytes([n]) * 32) for n in (1, 2, 3))


class Connection:
    """Stands in for the transport's connection: only what the switchboard asks of it."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def close_reason(self) -> str | None:
        return self.reason

    def close(self, code: int, reason: bytes) -> None:
        self.reason = reason.decode()


def line(peer: NodeKey) -> Line:
    return Line(peer, Connection())


def test_the_newest_address_comes_first_and_older_ones_stay() -> None:
    book = AddressBook(LinkLimits())
    book.learn(A, Address("http://relay:1", ("1.1.1.1:1",)))
    book.learn(A, Address("", ("2.2.2.2:2",)))
    assert book.find(A) == Address("http://relay:1", ("2.2.2.2:2", "1.1.1.1:1"))


def test_addresses_per_peer_are_bounded() -> None:
    book = AddressBook(LinkLimits(addresses_per_peer=2))
    book.learn(A, Address("", tuple(f"1.1.1.{n}:1" for n in range(1, 100))))
    assert book.find(A) == Address("", ("1.1.1.1:1", "1.1.1.2:1"))


def test_the_longest_unused_peer_is_forgotten_first() -> None:
    book = AddressBook(LinkLimits(peers_known=2))
    for peer in (A, B):
        book.learn(peer, Address("", ("1.1.1.1:1",)))
    book.find(A)
    book.learn(C, Address("", ("1.1.1.1:1",)))
    assert book.find(B) is None
    assert book.find(A) is not None


@pytest.mark.parametrize("text", ["1.2.3.4:80", "[::1]:80", "255.255.255.255:65535"])
def test_socket_addresses_are_taken(text: str) -> None:
    assert is_socket_address(text)


@pytest.mark.parametrize(
    "text",
    ["", "1.2.3.4", "example.org:80", "1.2.3.4:0", "1.2.3.4:65536", "::1:80", "[1.2.3.4]:80", "1.2.3.4:x"],
)
def test_anything_else_is_dropped(text: str) -> None:
    assert not is_socket_address(text)


def test_relay_urls_are_web_urls_of_sane_length() -> None:
    assert is_relay_url("http://198.51.100.7:3340")
    assert not is_relay_url("file:///etc/passwd")
    assert not is_relay_url("http://" + "x" * 300)


def test_the_newest_live_line_carries_new_streams() -> None:
    board = Switchboard(LinkLimits())
    old, new = line(A), line(A)
    board.add(old)
    board.add(new)
    assert board.find(A) is new
    new.close(b"gone")
    assert board.find(A) is old
    old.close(b"gone")
    assert board.find(A) is None
    assert not list(board)


def test_a_peer_that_dials_again_and_again_loses_its_oldest_lines() -> None:
    board = Switchboard(LinkLimits(connections_per_peer=2))
    lines = [line(A) for _ in range(5)]
    for each in lines:
        board.add(each)
    assert [each.is_live for each in lines] == [False, False, False, True, True]


def test_at_the_limit_an_idle_line_makes_room_and_a_busy_one_does_not() -> None:
    board = Switchboard(LinkLimits(connections=2))
    busy, idle = line(A), line(B)
    board.add(busy)
    board.add(idle)
    stream = type("Raw", (), {"send": lambda self: None, "recv": lambda self: None})()
    kept = [busy.stream(stream)]
    assert board.make_room()
    assert not idle.is_live
    board.add(line(C))
    kept.append(next(each for each in board if each.peer == C).stream(stream))
    assert not board.make_room()
    kept.clear()  # streams that everybody forgot do not count
    assert board.make_room()


def test_removing_a_line_twice_does_no_harm() -> None:
    board = Switchboard(LinkLimits())
    only = line(A)
    board.add(only)
    board.remove(only)
    board.remove(only)
    assert board.find(A) is None
