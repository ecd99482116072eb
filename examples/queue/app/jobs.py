"""What the API and the workers agree on: where in redis a job is.

``waiting`` is the list of jobs to do, ``taken:WORKER`` what a worker has in hand, ``job:ID`` a hash with all about it.
"""

import redis

WAITING = "waiting"
BELOW_MAX = 20_000_000

store = redis.Redis(host="redis", decode_responses=True, socket_connect_timeout=5)


def add(below: int) -> str:
    job = str(store.incr("jobs"))
    store.hset(f"job:{job}", mapping={"state": "waiting", "below": below})
    store.lpush(WAITING, job)
    return job
