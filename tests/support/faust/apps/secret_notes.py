"""Values in a format of the application: a codec that it registers, alone and after JSON."""

from __future__ import annotations

from typing import Any

import faust
from faust.serializers import codecs

from tests.support.faust.naming import name


class Mirrored(codecs.Codec):
    """Bytes in reverse order."""

    def _dumps(self, s: bytes) -> bytes:
        return s[::-1]

    def _loads(self, s: bytes) -> bytes:
        return s[::-1]


codecs.register("mirrored", Mirrored())

app = faust.App(name("secret-notes"), topic_partitions=2)


class Note(faust.Record, serializer="json|mirrored"):  # type: ignore[call-arg]
    author: str
    text: str


class Card(faust.Record, serializer="json|binary"):  # type: ignore[call-arg]
    author: str
    notes: int
    last: str


notes = app.topic(name("notes"), key_type=str, value_type=Note)
cards = app.topic(name("cards"), key_type=str, value_type=Card)
mirrors = app.topic(name("mirrors"), key_type=str, value_type=str, value_serializer="json|mirrored")
latest = app.Table("latest", key_type=str, value_type=Card, partitions=2)


@app.agent(notes)
async def keep(stream: Any) -> None:
    async for note in stream:
        card = latest.get(note.author)
        card = Card(note.author, card.notes + 1 if card else 1, note.text)
        latest[note.author] = card
        await cards.send(key=note.author, value=card)
        await mirrors.send(key=note.author, value=note.text)
