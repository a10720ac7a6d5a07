"""Envelopes of durable formats: what they notice. The bytes of each format are in `tests/test_durable_formats.py`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.envelope import (
    BLAKE2B,
    CRC32,
    NO_CHECKSUM,
    BinaryEnvelope,
    EnvelopeError,
    Fault,
    JsonEnvelope,
    LineEnvelope,
)
from pipeline.errors import InvariantError

PLAIN = BinaryEnvelope(version=1)
NAMED = BinaryEnvelope(version=3, magic=b"XX", checksum=BLAKE2B)
WITH_FIELDS = BinaryEnvelope(version=1, magic=b"XX", fields=4, covered=lambda fields: fields[:2])
UNCHECKED = BinaryEnvelope(version=1, checksum=NO_CHECKSUM)
JSON = JsonEnvelope(body="it", version=2, older=(1,), before=("name",), after=("note",))
LINE = LineEnvelope()


def fault_of(envelope: BinaryEnvelope | JsonEnvelope | LineEnvelope, data: bytes) -> Fault:
    with pytest.raises(EnvelopeError) as raised:
        envelope.open(data)
    return raised.value.fault


@given(st.binary(max_size=50), st.binary(min_size=4, max_size=4))
def test_a_body_is_read_as_it_was_sealed(body: bytes, fields: bytes) -> None:
    """Whatever bytes a format has."""
    for envelope in (PLAIN, NAMED, UNCHECKED, LINE):
        assert envelope.open(envelope.seal(body)) == body
    data = WITH_FIELDS.seal(body, fields)
    assert (WITH_FIELDS.open(data), WITH_FIELDS.fields_of(data)) == (body, fields)
    assert len(data) == WITH_FIELDS.header_size + len(body)


@given(st.binary(max_size=20), st.integers(0), st.integers(0, 7))
def test_each_changed_bit_of_a_checked_body_is_noticed(body: bytes, place: int, bit: int) -> None:
    """A disk or a broker may change one."""
    for envelope in (PLAIN, NAMED, LINE):
        data = bytearray(envelope.seal(body))
        data[place % len(data)] ^= 1 << bit
        with pytest.raises(EnvelopeError):
            envelope.open(bytes(data))


def test_covered_fields_are_part_of_the_checksum() -> None:
    """A chunk of one entry must not pass for a chunk of another."""
    data = bytearray(WITH_FIELDS.seal(b"body", b"abcd"))
    data[5] ^= 1  # the first field that is not covered
    assert WITH_FIELDS.open(bytes(data)) == b"body"
    data[4] ^= 1
    assert fault_of(WITH_FIELDS, bytes(data)) is Fault.CHECKSUM


def test_fields_of_another_size_are_a_mistake_of_ours() -> None:
    """They would shift the checksum and the body."""
    with pytest.raises(InvariantError):
        WITH_FIELDS.seal(b"body", b"abc")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", Fault.FOREIGN),
        (b"XX\x03", Fault.FOREIGN),
        (b"YY" + NAMED.seal(b"body")[2:], Fault.FOREIGN),
        (b"XX\x04" + NAMED.seal(b"body")[3:], Fault.VERSION),
        (NAMED.seal(b"body") + b"x", Fault.CHECKSUM),
    ],
)
def test_a_reader_learns_what_is_wrong(data: bytes, fault: Fault) -> None:
    """An unknown version asks for another release; a wrong checksum for a repair."""
    assert fault_of(NAMED, data) is fault


def test_an_unknown_version_is_named() -> None:
    """The error tells the operator which release wrote it."""
    with pytest.raises(EnvelopeError) as raised:
        PLAIN.open(b"\x07" + PLAIN.seal(b"body")[1:])
    assert raised.value.version == 7
    with pytest.raises(EnvelopeError) as raised:
        JSON.open(JSON.seal(b"{}", {"name": "n"}).replace(b'"version":2', b'"version":9'))
    assert (raised.value.fault, raised.value.version) == (Fault.VERSION, 9)


def test_json_keeps_the_exact_bytes_of_its_body() -> None:
    """The checksum is over bytes: a body that is encoded anew might have others."""
    data = JSON.seal(b'{"b": 1,  "a": 2}', {"name": "n", "note": "m"})
    assert JSON.open(data) == b'{"b": 1,  "a": 2}'
    assert JSON.read(data).fields == {"name": "n", "note": "m"}
    assert b"note" not in JSON.seal(b"{}", {"name": "n", "note": ""})
    assert JSON.open(data.replace(b'"version":2', b'"version":1')) == b'{"b": 1,  "a": 2}'


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", Fault.FOREIGN),
        (b"\xff", Fault.FOREIGN),
        (b"[1]", Fault.FOREIGN),
        (b'{"version":2,"checksum":"x","it":{}}', Fault.FOREIGN),
        (b'{"version":"2","name":"n","checksum":"x","it":{}}', Fault.FOREIGN),
        (b'{"version":2,"name":"n","checksum":"x","it":{}}', Fault.CHECKSUM),
    ],
)
def test_json_of_another_shape_is_not_opened(data: bytes, fault: Fault) -> None:
    """Other programs may write to a topic of positions."""
    assert fault_of(JSON, data) is fault


def test_checksums_are_those_of_the_standard() -> None:
    """Other implementations can verify them."""
    assert CRC32.of(b"", b"123456789").hex() == "cbf43926"
    assert CRC32.of(b"1234", b"56789").hex() == "cbf43926"
    assert BLAKE2B.of(b"a", b"bc") == BLAKE2B.of(b"", b"abc")
