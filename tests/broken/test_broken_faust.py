"""Broken on purpose: what an agent of a `faust.App` did in an event belongs to the event, or is undone with it."""

from __future__ import annotations

import pytest

pytest.importorskip("faust", reason="the extra `faust` is not installed")

import pipeline.faust.agent_loop
import pipeline.faust.agents
import pipeline.faust.objects
import pipeline.faust.outputs
import pipeline.faust.serializers
import pipeline.faust.sets
import pipeline.faust.tables
import pipeline.http.rows
import pipeline.queries.reader
from tests.support.breaking import Broken, Copy, name_of

AGENTS = "tests/faust/test_agents.py"
TABLES = "tests/faust/test_tables.py"
READING = "tests/faust/test_reading.py"
CHECK = "tests/faust/test_check.py"

ROWS = [
    Broken(
        "an event is finished although its agent still waits",
        pipeline.faust.agent_loop.AgentTask.step,
        "if yielded is not NEXT:",
        "if False:",
        f"{AGENTS} may_wait_time_out",
    ),
    Broken(
        "an agent that waits is continued for one turn of the loop only",
        pipeline.faust.agent_loop.AgentTask._continue,
        "error = self._loop.run_until_complete(self._outcome)",
        "self._loop.run_ready()\n        error = self._outcome.result() if self._outcome.done() else None",
        f"{AGENTS} may_wait_time_out",
    ),
    Broken(
        "an error of an agent that has waited is lost",
        pipeline.faust.agent_loop.AgentTask._run,
        "self._outcome.set_result(error)",
        "self._outcome.set_result(None)",
        f"{AGENTS} fails_after_it_has_waited",
    ),
    Broken(
        "the effects of an agent that raised are kept",
        pipeline.faust.agents.AgentInstance,
        "            self._coroutine = None\n            raise\n",
        "            self._coroutine = None\n",
        f"{AGENTS} failed_event_leaves_nothing",
    ),
    Broken(
        "the coroutine that raised is given the next event",
        pipeline.faust.agents.AgentInstance,
        "            self._coroutine = None\n            raise\n",
        "            raise\n",
        f"{AGENTS} error_policy_of_an_app",
    ),
    Broken(
        "values of an event that failed are given out in the next one",
        pipeline.faust.agents.AgentInstance,
        "            if self.values:\n                self.values.clear()\n",
        "            pass\n",
        f"{TABLES} changed_in_place_by_a_failed_event",
    ),
    Broken(
        "values that were changed in place are not stored",
        pipeline.faust.agents.AgentInstance,
        "            if self.values:\n                self._write_back()\n",
        "            pass\n",
        f"{TABLES} changed_in_place_is_stored",
    ),
    Broken(
        "values are not stored if the agent returns in their event",
        pipeline.faust.agents.AgentInstance,
        "            self._coroutine, self._ended = None, True\n            self._write_back()\n",
        "            self._coroutine, self._ended = None, True\n",
        f"{TABLES} agent_that_returns",
    ),
    Broken(
        "an agent that has returned is started again",
        pipeline.faust.agents.AgentInstance._start,
        "if self._ended:",
        "if False:",
        f"{AGENTS} returns_stops_its_task",
    ),
    Broken(
        "a value is read again within its event",
        pipeline.faust.tables.TableRows.__getitem__,
        "            values[self, stored] = _Value(self, stored, value, data)\n",
        "            pass\n",
        f"{TABLES} changed_in_place_is_stored",
    ),
    Broken(
        "a value that was assigned is not watched for changes",
        pipeline.faust.tables.TableRows.__setitem__,
        "            agent.values[self, stored] = _Value(self, stored, value, data)\n",
        "            pass\n",
        f"{TABLES} changed_after_its_assignment",
    ),
    Broken(
        "a deleted value is stored again at the end of its event",
        pipeline.faust.tables.TableRows.__delitem__,
        "        agent.values.pop((self, stored), None)\n",
        "",
        f"{TABLES} deleted_after_a_change",
    ),
    Broken(
        "a default is stored by reading it",
        pipeline.faust.tables.EngineTable.__getitem__,
        "            return self.default()\n",
        "            self._data[key] = self.default()\n            return self._data[key]\n",
        f"{TABLES} default_is_not_stored",
    ),
    Broken(
        "a set that an agent added to is not stored",
        pipeline.faust.sets._Set.on_add,
        "self._written = True",
        "pass",
        f"{TABLES} add_alone",
    ),
    Broken(
        "a set that an agent updated is not stored",
        pipeline.faust.sets._Set.on_change,
        "self._written = True",
        "pass",
        f"{TABLES} set_table_stores",
    ),
    Broken(
        "a set that was only read is stored",
        pipeline.faust.sets._Set.write_back,
        "if not self._written:",
        "if False:",
        f"{TABLES} set_table_stores",
    ),
    Broken(
        "the bytes of a set depend on the order of its elements",
        pipeline.faust.sets.FaustSets.encode_set,
        "sorted(map(self._element, elements))",
        "sorted(map(self._element, elements), reverse=True)",
        f"{TABLES} bytes_of_a_set",
    ),
    Broken(
        "a send outside of an event is dropped",
        pipeline.faust.outputs.Outputs.send_encoded,
        'raise outside(f"a message is sent to {name}")',
        "return Sent(name)",
        f"{AGENTS} outside_of_an_event",
    ),
    Broken(
        "a message has the time of its event although the agent gave one",
        pipeline.faust.outputs.Outputs._put,
        "timestamp_ms=None if timestamp is None else int(timestamp * 1000)",
        "timestamp_ms=None",
        f"{AGENTS} every_way_to_send",
    ),
    Broken(
        "a key that could be a number or a text is taken as a text",
        pipeline.faust.tables.FaustTable.parse_key,
        "if self._key_type is None and self._has_json_keys and _is_number(text):",
        "if False:",
        f"{TABLES} ambiguous_without_a_key_type",
    ),
    Broken(
        "a reader does not know the tables of Faust",
        pipeline.queries.reader.Reader._declared,
        "table = self._app.declared(table)",
        "pass",
        f"{READING} what_agents_use",
    ),
    Broken(
        "the keys over HTTP are not encoded as those of the table",
        pipeline.http.rows._place,
        'if has_times(table) else table.parse_key(query["key"])',
        "if True else None",
        f"{READING} key_as_text",
    ),
    Broken(
        "the schema of a user is not called",
        pipeline.faust.serializers.plain_schema,
        "type(schema) is Schema",
        "isinstance(schema, Schema)",
        f"{READING} decodes_with_the_message",
    ),
    Broken(
        "sensors that are added are ignored",
        pipeline.faust.objects.uses_of_objects,
        "yield from _settings(app, here)",
        "pass",
        f"{CHECK} sensor_that_is_added",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass although an event is finished too early, or kept after an error, would be worth nothing."""
    copied.assert_noticed(broken)
