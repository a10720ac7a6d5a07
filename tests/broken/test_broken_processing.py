"""Broken on purpose: what handlers did with a record and its tries."""

from __future__ import annotations

import pytest

from tests.support.breaking import Broken, Copy, name_of

ROWS = [
    Broken(
        "a record that raises keeps what it wrote",
        "api/table.py",
        "            table.restore(slot, value, data, dirty=dirty)",
        "            pass",
        "tests/runtime/task/test_processor.py",
    ),
    Broken(
        "a later mutation reaches the stored value",
        "api/codecs.py",
        "    immutable = is_immutable(declared)\n",
        "    immutable = True\n",
        "tests/api/test_table.py",
    ),
    Broken(
        "a record is decoded by the message of the one before",
        "api/context.py",
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
        "runtime/task/processor.py",
        "                self._take_back(mark)\n                if self._seen is not None:\n",
        "                del self._context.outputs[mark:]\n                if self._seen is not None:\n",
        "tests/runtime/task/test_retries.py counts_once",
    ),
    Broken(
        "an error that is not an Exception ends the worker",
        "runtime/task/processor.py",
        "PoisonError, RetryError):\n                raise\n            except BaseException as error:",
        "PoisonError, RetryError):\n                raise\n            except Exception as error:",
        "tests/runtime/task/test_misbehaving_code.py gets_the_policy",
    ),
    Broken(
        "a decoder that fails in another way the second time ends the worker",
        "runtime/task/handler_errors.py",
        "    except BaseException:  # noqa: BLE001 - a user's codec may raise anything\n",
        "    except LookupError:\n",
        "tests/runtime/task/test_misbehaving_code.py null",
    ),
    Broken(
        "a message whose headers failed once is asked again",
        "core/headers.py",
        "        _replace(record, error).fail()\n    return found",
        "        raise UnreadableHeadersError(str(error)) from None\n    return found",
        "tests/runtime/task/test_malformed_headers.py make_a_dead_letter",
    ),
    Broken(
        "a codec is given a message whose headers are unsafe",
        "api/codecs.py",
        "        return decode(data, shielded(message))\n",
        "        return decode(data, message)\n",
        "tests/runtime/task/test_malformed_headers.py asks_the_message_itself",
    ),
    Broken(
        "a dead letter does not say which headers it lacks",
        "core/dead_letters.py",
        "    if letter.left_out:\n",
        "    if False:\n",
        "tests/runtime/task/test_malformed_headers.py make_a_dead_letter",
    ),
    Broken(
        "a copy leaves out headers that cannot be read",
        "ops/migration/copying.py",
        "        headers = tuple(headers_of(record))\n    except",
        "        from pipeline.core.headers import readable_headers\n"
        "        headers = tuple(readable_headers(record)[0])\n    except",
        "tests/ops/migration/test_copying.py unreadable_headers",
    ),
    Broken(
        "two groups share the keys of their effects",
        "api/event.py",
        '{"_scope": f"{app}\\x00{group}\\x00{topic_id}"',
        '{"_scope": f"{app}\\x00{topic_id}"',
        "tests/runtime/task/test_effects.py groups_do_not_share",
    ),
]


@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)
