"""Why something ended, as whoever ended it says: strangers, too."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.reason import Reason


@given(st.text(), st.text())
def test_a_strangers_reason_is_one_line_of_what_can_be_printed(code: str, text: str) -> None:
    """It is shown in our user's terminal: nothing in it moves the cursor or sets the window's title."""
    found = msgspec.msgpack.decode(msgspec.msgpack.encode([code, text]), type=Reason)
    assert str(found).isprintable()
    assert len(found.text) == len(text)
    assert found == Reason(code, text)


def test_what_can_be_printed_stays_as_it_is() -> None:
    assert Reason("host.full", "kein Platz für 5 GiB – leider").text == "kein Platz für 5 GiB – leider"
    assert Reason("a\x1bb", "\x1b]0;title\x07two\nlines") == Reason("a b", " ]0;title two lines")
