"""Charges each order at a provider outside Kafka, and publishes the receipt.

A worker that dies between the call and its commit makes the call again, under the same key; the provider then gives
its first answer again. So there is one charge for each order, and one receipt.

Run it with: pipeline worker examples.effects.app:app    (EFFECTS_PROVIDER: the provider, EFFECTS_SUFFIX: see below)
"""

from __future__ import annotations

import http.client
import json
import os
from urllib.parse import urlsplit

import msgspec

from pipeline import App, Context, Event

PROVIDER = os.environ.get("EFFECTS_PROVIDER", "http://127.0.0.1:8025")
SUFFIX = os.environ.get("EFFECTS_SUFFIX", "")  # appended to the app's and all topics' names
TIMEOUT_S = 10.0


class Order(msgspec.Struct, frozen=True):
    """What is to be paid."""

    customer: str
    cents: int


class Receipt(msgspec.Struct, frozen=True):
    """That it was: the provider's name for the charge."""

    charge: str


class Payments:
    """A client of the provider. One a worker: its connection is used again."""

    def __init__(self) -> None:
        self._place = urlsplit(PROVIDER)
        self._connection: http.client.HTTPConnection | None = None

    def charge(self, order: Order, key: str) -> str:
        """Charge once for each key; the charge's name. Raises OSError, HTTPException, ValueError."""
        connection = self._connection or http.client.HTTPConnection(self._place.netloc, timeout=TIMEOUT_S)
        self._connection = None  # one that failed is not used again
        body = json.dumps({"customer": order.customer, "cents": order.cents})
        headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
        try:
            connection.request("POST", "/charges", body, headers)
            with connection.getresponse() as answer:
                document = json.loads(answer.read())
            if answer.status not in {200, 201}:
                raise ValueError(f"the provider says {answer.status}: {document}")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return str(document["charge"])

    def close(self) -> None:
        """Called when the worker stops."""
        if self._connection is not None:
            self._connection.close()


app = App(f"effects{SUFFIX}")
orders = app.topic(f"effect-orders{SUFFIX}", key=str, value=Order)
receipts = app.topic(f"effect-receipts{SUFFIX}", key=str, value=Receipt)
payments = app.resource(Payments)


@app.handler(orders, on_error="stop", retries=5)
def charge(event: Event[str, Order], ctx: Context) -> None:
    """The call comes last: nothing behind it can fail but the commit."""
    name = ctx.resource(payments).charge(event.value, event.effect_key())
    ctx.send(receipts, event.key, Receipt(name))
