"""What `pipeline deadletters show` says of a letter."""

from __future__ import annotations

from pipeline.cli.dead_letter_views import letter_document, letter_lines
from pipeline.core.dead_letters import Letter, Origin
from pipeline.ops.dead_letters.letters import DeadLetter

REASON = "1 of 2 headers cannot be read: the name is not valid UTF-8 (b'\\xff')"


def test_headers_that_a_letter_lacks_are_shown() -> None:
    """The operator must know that a replay will not have these headers."""
    letter = Letter(Origin("orders", 0, 7), "handle", "UnreadableHeadersError: " + REASON, left_out=REASON)
    found = DeadLetter(0, 3, letter, b"k", b"v", [("trace", b"1")])
    lines = list(letter_lines(found, None))
    assert "  header     trace: 1" in lines
    assert any(line.startswith("  omitted    1 of 2 headers cannot be read") for line in lines)
    document = letter_document(found, None)
    assert document["headers_omitted"] == REASON
    whole = found.letter._replace(left_out="")
    assert letter_document(DeadLetter(0, 3, whole, b"k", b"v", ()), None)["headers_omitted"] is None
