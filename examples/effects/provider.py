"""A payment provider that honours the header Idempotency-Key, on the standard library's HTTP server.

    POST /charges {"customer": "ann", "cents": 500}   with Idempotency-Key: ...

| the key | the answer |
| --- | --- |
| missing | 400 |
| new | 201, and the charge is made |
| known, with the same body | 200, the first answer again; nothing is done |
| known, with another body | 422: two effects share a key, which is a mistake of the caller |

GET /charges gives all charges, and how many requests there were. It keeps its books in memory; a real one writes
key and charge in one transaction, before it answers.

Run it with: python -m examples.effects.provider [PORT]
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Provider"]


class Provider:
    """The books. `on_charge` is called with the number of charges once one is made, before it is answered."""

    def __init__(self, port: int = 0, on_charge: Callable[[int], None] = lambda _count: None) -> None:
        self.requests = 0
        self.charges: dict[str, dict[str, Any]] = {}  # by idempotency key
        self._on_charge = on_charge
        self._lock = threading.Lock()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            """One connection."""

            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one packet: two would wait for each other, 40 ms a request

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
                self._answer(*provider.charge(self.headers.get("Idempotency-Key"), body))

            def do_GET(self) -> None:
                self._answer(200, {"requests": provider.requests, "charges": list(provider.charges.values())})

            def _answer(self, status: int, document: dict[str, Any]) -> None:
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
                except ConnectionError:  # a caller that was killed
                    return

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def charge(self, key: str | None, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Make a charge, or find the one of this key: (status, answer)."""
        with self._lock:
            self.requests += 1
            if not key:
                return 400, {"error": "the header Idempotency-Key is missing"}
            known = self.charges.get(key)
            if known is not None:
                if known["body"] != body:
                    return 422, {"error": "this key was used for another charge"}
                return 200, known
            made = {"charge": f"ch-{len(self.charges) + 1}", "body": body}
            self.charges[key] = made
            count = len(self.charges)
        self._on_charge(count)
        return 201, made


def main() -> None:
    """Serve until interrupted."""
    provider = Provider(int(sys.argv[1]) if len(sys.argv) > 1 else 8025)
    print(f"charges: {provider.url}/charges", flush=True)
    provider.server.serve_forever()


if __name__ == "__main__":
    main()
