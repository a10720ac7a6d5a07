"""Broken on purpose: what handlers did with a record and its tries."""

from __future__ import annotations

import pytest

from tests.broken.breaking import Broken, Copy, name_of

ROWS = [
    Broken(
        "a record that raises keeps what it wrote",
        "table.py",
        "            table.restore(slot, value, data, dirty=dirty)",
        "            pass",
        "tests/runtime/test_processor.py",
    ),
    Broken(
        "a later mutation reaches the stored value",
        "codecs.py",
        "    immutable = is_immutable(declared)\n",
        "    immutable = True\n",
        "tests/test_table.py",
    ),
    Broken(
        "a record is decoded by the message of the one before",
        "context.py",
        "        return lambda data: with_message(data, self.message)\n",
        "        before = [None]\n"
        "        def late(data, before=before):\n"
        "            before.append(self.message)\n"
        "            return with_message(data, before[-2] or self.message)\n"
        "        return late\n",
        "tests/runtime/test_message_codecs.py own_message",
    ),
    Broken(
        "a try that failed leaves its writes to the next one",
        "runtime/processor.py",
        "            except RAISED as error:  # whatever user code raises belongs to its record\n"
        "                self._take_back(mark)\n",
        "            except RAISED as error:\n                del self._context.outputs[mark:]\n",
        "tests/runtime/test_retries.py counts_once",
    ),
    Broken(
        "two groups share the keys of their effects",
        "event.py",
        '{"_scope": f"{app}\\x00{group}\\x00{topic_id}"',
        '{"_scope": f"{app}\\x00{topic_id}"',
        "tests/runtime/test_effects.py groups_do_not_share",
    ),
]


@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)
