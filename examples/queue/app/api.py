"""POST /jobs with a number as body, GET /jobs/ID, GET /health."""

import json
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from jobs import BELOW_MAX, add, store


class Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        head, _, job = self.path.strip("/").partition("/")
        if head == "health":
            self.answer(200, {"redis": store.ping()})
        elif head == "jobs" and (found := store.hgetall(f"job:{job}")):
            result = {"result": int(found["result"])} if "result" in found else {}
            self.answer(200, {"job": job, **found, **result})
        else:
            self.answer(404, {"error": "no such job"})

    def do_POST(self) -> None:
        body = (
            self.rfile.read(min(64, int(self.headers.get("Content-Length") or 0)))
            .decode(errors="replace")
            .strip()
        )
        if self.path != "/jobs" or not body.isdecimal() or int(body) > BELOW_MAX:
            self.answer(400, {"error": f"POST a number up to {BELOW_MAX} to /jobs"})
            return
        self.answer(202, {"job": add(int(body))})

    def answer(self, status: int, value: dict[str, object]) -> None:
        data = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    # The first process of a container ignores SIGTERM unless it says otherwise.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ThreadingHTTPServer(("0.0.0.0", 8000), Api).serve_forever()
