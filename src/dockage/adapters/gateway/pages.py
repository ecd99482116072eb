"""What a gateway itself answers: a status and a sentence, and nothing of what is behind it."""

from __future__ import annotations

_WORDS = {
    400: "This request is not one that can be answered.",
    404: "Nothing is served under this name here.",
    431: "The head of this request is too long.",
    502: "The service did not answer.",
    503: "The service is not available now. Please try again in a moment.",
    504: "The service took too long to answer.",
}


class Refused(Exception):
    """The client gets a page of ours with this status, and then the connection ends."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def page(status: int) -> bytes:
    body = f"{status} {_WORDS[status]}\n".encode()
    again = "retry-after: 2\r\n" if status == 503 else ""
    head = (
        f"HTTP/1.1 {status} \r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {len(body)}\r\n"
        f"cache-control: no-store\r\n{again}connection: close\r\n\r\n"
    )
    return head.encode() + body
