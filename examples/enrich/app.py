"""Adds to each login the country of its IP address, which a service outside Kafka knows.

    logins -> a request for each address that is not known -> located-logins

At most 32 requests are in flight at once. A request without an answer ends after two seconds, and is retried. The last
answer for an address is the row of its key, so further logins of a day need no request. The row is kept, because an
async handler cannot use tables with a time-to-live. A login whose address cannot be located becomes a dead letter.

ENRICH_PROVIDER is the address of the service.
Run it with: pipeline worker examples.enrich.app:app --topics-dir examples/enrich/topics
"""

from __future__ import annotations

import asyncio
import os
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import msgspec

from pipeline import App, AsyncContext, Event

PROVIDER = os.environ.get("ENRICH_PROVIDER", "http://127.0.0.1:8028")
CONCURRENCY = 32
REQUEST_S = 2.0
FRESH_MS = 24 * 3_600_000


class Login(msgspec.Struct, frozen=True):
    """Who has logged in."""

    user: str


class Located(msgspec.Struct, frozen=True):
    """Who has logged in, and from where."""

    user: str
    country: str


class Answer(msgspec.Struct, frozen=True):
    """What the service has said of an address, and the time of the login for which it was asked."""

    country: str
    at_ms: int


class Countries:
    """A client of the service on threads, so that the example needs no package. Each worker has one."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(CONCURRENCY)

    async def country_of(self, address: str) -> str:
        """Ask the service. Raises OSError for no answer and each status but 200, and ValueError."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._request, address)

    def _request(self, address: str) -> str:
        url = f"{PROVIDER}/countries/{quote(address, safe='')}"
        try:
            with urllib.request.urlopen(url, timeout=REQUEST_S) as response:  # noqa: S310 - the operator's URL
                return msgspec.json.decode(response.read(), type=str)
        except urllib.error.HTTPError as error:
            error.close()  # it holds the connection
            raise

    def close(self) -> None:
        """Called when the worker stops."""
        self._threads.shutdown(wait=False)


app = App("enrich")
logins = app.topic("logins", key=str, value=Login)  # by IP address
located_logins = app.topic("located-logins", key=str, value=Located)  # by IP address
answers = app.table("answers", key=str, value=Answer)
countries = app.resource(Countries)


@app.async_handler(
    logins,
    concurrency=CONCURRENCY,
    timeout_s=2 * REQUEST_S,  # of the call; a thread cannot be cancelled, so its request ends before
    retries=3,
    retry_delay_s=0.2,
    on_error="dead_letter",
)
async def logged_in(event: Event[str, Login], ctx: AsyncContext) -> None:
    """Calls for one address run one after the other, so each sees the answer to the one before it."""
    row = ctx.row(answers, event)
    answer = row.value
    if answer is None or event.timestamp_ms - answer.at_ms > FRESH_MS:
        country = await ctx.resource(countries).country_of(event.key)
        row.value = answer = Answer(country, event.timestamp_ms)
    ctx.send(located_logins, event.key, Located(event.value.user, answer.country))
