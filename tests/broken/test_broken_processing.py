"""Broken on purpose: what handlers did with a record and its tries."""

from __future__ import annotations

import pytest

import pipeline.api.codecs
import pipeline.api.context
import pipeline.api.event
import pipeline.api.table
import pipeline.core.dead_letters
import pipeline.core.headers
import pipeline.ops.migration.copying
import pipeline.runtime.task.handler_errors
import pipeline.runtime.task.processor
from tests.support.breaking import Broken, Copy, name_of

ROWS = [
    Broken(
        "a record that raises keeps what it wrote",
        pipeline.api.table.TaskOverlay.take_back,
        "            table.restore(slot, value, data, dirty=dirty)",
        "            pass",
        "tests/runtime/task/test_processor.py",
    ),
    Broken(
        "a later mutation reaches the stored value",
        pipeline.api.codecs._build,
        "    immutable = is_immutable(declared)\n",
        "    immutable = True\n",
        "tests/api/test_table.py",
    ),
    Broken(
        "a record is decoded by the message of the one before",
        pipeline.api.context.RuntimeContext.value_decoder,
        "        return lambda data: with_message(data, self.message)\n",
        "        before = [None]\n"
        "        def late(data, before=before):\n"
        "            before.append(self.message)\n"
        "            return with_message(data, before[-2] or self.message)\n"
        "        return late\n",
        "tests/runtime/task/test_message_codecs.py own_message",
    ),
    Broken(
        "a try that failed leaves its writes to the next one",
        pipeline.runtime.task.processor.Processor._run_records,
        "                self._take_back(mark)\n                if self._seen is not None:\n",
        "                del self._context.outputs[mark:]\n                if self._seen is not None:\n",
        "tests/runtime/task/test_retries.py counts_once",
    ),
    Broken(
        "an error that is not an Exception ends the worker",
        pipeline.runtime.task.processor.Processor._run_records,
        "PoisonError, RetryError):\n                raise\n            except BaseException as error:",
        "PoisonError, RetryError):\n                raise\n            except Exception as error:",
        "tests/runtime/task/test_misbehaving_code.py gets_the_policy",
    ),
    Broken(
        "a decoder that fails in another way the second time ends the worker",
        pipeline.runtime.task.handler_errors.plainly,
        "    except BaseException:  # noqa: BLE001 - a user's codec may raise anything\n",
        "    except LookupError:\n",
        "tests/runtime/task/test_misbehaving_code.py null",
    ),
    Broken(
        "a message whose headers failed once is asked again",
        pipeline.core.headers.headers_of,
        "        _replace(record, error).fail()\n    return found",
        "        raise UnreadableHeadersError(str(error)) from None\n    return found",
        "tests/runtime/task/test_malformed_headers.py make_a_dead_letter",
    ),
    Broken(
        "a codec is given a message whose headers are unsafe",
        pipeline.api.codecs._own,
        "        return decode(data, shielded(message))\n",
        "        return decode(data, message)\n",
        "tests/runtime/task/test_malformed_headers.py asks_the_message_itself",
    ),
    Broken(
        "a dead letter does not say which headers it lacks",
        pipeline.core.dead_letters.letter_headers,
        "    if letter.left_out:\n",
        "    if False:\n",
        "tests/runtime/task/test_malformed_headers.py make_a_dead_letter",
    ),
    Broken(
        "a copy leaves out headers that cannot be read",
        pipeline.ops.migration.copying._as_it_was,
        "        headers = tuple(headers_of(record))\n    except",
        "        from pipeline.core.headers import readable_headers\n"
        "        headers = tuple(readable_headers(record)[0])\n    except",
        "tests/ops/migration/test_copying.py unreadable_headers",
    ),
    Broken(
        "two groups share the keys of their effects",
        pipeline.api.event.event_type,
        '{"_scope": f"{app}\\x00{group}\\x00{topic_id}"',
        '{"_scope": f"{app}\\x00{topic_id}"',
        "tests/runtime/task/test_effects.py groups_do_not_share",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)
