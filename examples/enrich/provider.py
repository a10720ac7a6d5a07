"""A service that knows the countries of IP addresses, slowly and not always, on the standard library's HTTP server.

| the address in GET /countries/ADDRESS | the answer |
| --- | --- |
| 192.0.2.N | 200 with a country, after a tenth of a second; but 503 to the first request for each address |
| 198.51.100.N | none; the connection stays open |
| any other | 404 |

GET / gives the number of requests for each address, and how many were in flight at once at most.

Run it with: python -m examples.enrich.provider [PORT]
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Provider"]

COUNTRIES = ("DE", "FR", "IT", "ES")


class Provider:
    """The service. `answer_s`: how long an answer takes."""

    def __init__(self, port: int = 0, answer_s: float = 0.1) -> None:
        self.requests: Counter[str] = Counter()  # by address
        self.most_at_once = 0
        self._at_once = 0
        self._answer_s = answer_s
        self._lock = threading.Lock()
        self._closed = threading.Event()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            """One connection."""

            def do_GET(self) -> None:
                if self.path.startswith("/countries/"):
                    answer = provider.country_of(self.path.removeprefix("/countries/"))
                else:
                    answer = 200, {"requests": provider.requests, "most_at_once": provider.most_at_once}
                if answer is not None:
                    self._answer(*answer)

            def _answer(self, status: int, document: Any) -> None:
                data = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by the standard library
                """Quiet."""

            def handle(self) -> None:
                try:
                    super().handle()
                except ConnectionError:  # a caller that was killed, or did not wait
                    return

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def country_of(self, address: str) -> tuple[int, Any] | None:
        """Status and answer; None if there is none, which takes until `close`."""
        with self._lock:
            self.requests[address] += 1
            number = self.requests[address]
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if address.startswith("198.51.100."):
                self._closed.wait()
                return None
            if not address.startswith("192.0.2."):
                return 404, {"error": "this address is not known"}
            if number == 1:
                return 503, {"error": "try again"}
            time.sleep(self._answer_s)
            return 200, COUNTRIES[int(address.rpartition(".")[2]) % len(COUNTRIES)]
        finally:
            with self._lock:
                self._at_once -= 1

    def close(self) -> None:
        """End the connections without an answer."""
        self._closed.set()


def main() -> None:
    """Serve until interrupted."""
    provider = Provider(int(sys.argv[1]) if len(sys.argv) > 1 else 8028)
    print(f"countries: {provider.url}/countries/192.0.2.1", flush=True)
    provider.server.serve_forever()


if __name__ == "__main__":
    main()
