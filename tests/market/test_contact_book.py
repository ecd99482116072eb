"""Nodes met before are the way back into the market; whoever floods us with contacts pushes nobody out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.identity import NodeKey
from dockage.domain.units import SECOND, Instant
from dockage.protocol.contact_book import LIMIT, ContactBook
from dockage.protocol.kademlia import PER_NETWORK, Contact, Space, network_of
from dockage.testing.clock import START

FREE, BOUND = Space(bound=False), Space(bound=True)


def contact(number: int, address: str = "127.0.0.1:1") -> Contact:
    return Contact(NodeKey(number.to_bytes(32, "big")), address)


def at(seconds: int) -> Instant:
    return Instant(START + seconds * SECOND)


def test_those_heard_from_last_come_first() -> None:
    book = ContactBook(FREE)
    for number in range(10):
        book.answered(contact(number), at(number))
    book.answered(contact(3), at(100))
    assert [each.key[-1] for each in book.best(4)] == [3, 9, 8, 7]


def test_it_is_the_same_after_a_restart() -> None:
    book = ContactBook(FREE)
    for number in range(10):
        book.answered(contact(number), at(number))
    again = ContactBook.load(book.dump(), FREE)
    assert again.best(99) == book.best(99)
    assert again.dump() == book.dump()


@given(st.binary(max_size=200))
def test_a_book_that_cannot_be_read_is_an_empty_one(blob: bytes) -> None:
    assert len(ContactBook.load(blob, FREE)) <= LIMIT
    assert len(ContactBook.load(b"\xc1" + blob, FREE)) == 0


def test_the_longest_silent_makes_room() -> None:
    book = ContactBook(FREE)
    for number in range(LIMIT + 10):
        book.answered(contact(number), at(number))
    assert len(book) == LIMIT
    assert contact(9) not in book.best(LIMIT)
    assert contact(10) in book.best(LIMIT)


def test_one_network_cannot_fill_the_book() -> None:
    book = ContactBook(BOUND)
    honest = [contact(number, f"8.8.{number}.1:1") for number in range(50)]
    for each in honest:
        book.answered(each, at(0))
    for number in range(100, 1000):
        book.answered(contact(number, f"9.9.9.{number % 250 + 1}:1"), at(number))
    assert set(honest) <= set(book.best(LIMIT))
    assert sum(network_of(each.address) == b"\x09\x09\x09" for each in book.best(LIMIT)) == PER_NETWORK


def test_a_node_that_moved_is_there_once_at_its_new_address() -> None:
    book = ContactBook(FREE)
    book.answered(contact(1, "127.0.0.1:1"), at(0))
    book.answered(contact(1, "127.0.0.1:2"), at(1))
    assert book.best(9) == [contact(1, "127.0.0.1:2")]


def test_what_the_market_would_not_admit_is_not_kept() -> None:
    book = ContactBook(BOUND)
    book.answered(contact(1, "192.168.1.1:1"), at(0))
    assert len(book) == 0
