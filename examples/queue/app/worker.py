"""Takes jobs, one at a time. A job stays in the worker's own list until it is done, and survives it there."""

import signal
import socket
import sys

from jobs import WAITING, store

ME = socket.gethostname()
TAKEN = f"taken:{ME}"


def primes_below(number: int) -> int:
    sieve = bytearray([1]) * max(number, 2)
    sieve[0:2] = b"\0\0"
    for n in range(2, int(number**0.5) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, len(sieve), n)))
    return sum(sieve[:number])


def give_back(*_: object) -> None:
    """What was in hand goes to the next worker."""
    while store.lmove(TAKEN, WAITING, "LEFT", "RIGHT"):
        pass
    sys.exit(0)


def main() -> None:
    signal.signal(signal.SIGTERM, give_back)
    while True:
        job = store.blmove(WAITING, TAKEN, 5, "RIGHT", "LEFT")
        if job is None:
            continue
        below = int(store.hget(f"job:{job}", "below"))
        store.hset(f"job:{job}", mapping={"state": "working", "worker": ME})
        store.hset(f"job:{job}", mapping={"result": primes_below(below), "state": "done"})
        store.lrem(TAKEN, 1, job)


if __name__ == "__main__":
    main()
