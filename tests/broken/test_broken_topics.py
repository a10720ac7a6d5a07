"""Broken on purpose: topics as code: what a plan refuses."""

from __future__ import annotations

import pytest

import pipeline.ops.topics.checking
import pipeline.ops.topics.cluster_state
import pipeline.ops.topics.plan
import pipeline.ops.topics.writing
import pipeline.ops.topics.yaml_documents
from tests.support.breaking import Broken, Copy, name_of

PLAN = "tests/ops/topics/test_plan.py"
WRITING = "tests/ops/topics/test_writing.py"

ROWS = [
    Broken(
        "an input gets more partitions",
        pipeline.ops.topics.plan._partitions,
        "    readers = facts.readers.get(topic.name, ())\n    if readers:\n",
        "    readers = facts.readers.get(topic.name, ())\n    if False:\n",
        f"{PLAN} of_an_input_are_refused",
    ),
    Broken(
        "an input is known by its positions alone",
        pipeline.ops.topics.cluster_state._inputs,
        "            identity = last.entry.identity\n",
        "            identity = None\n",
        f"{PLAN} before_its_first_record",
    ),
    Broken(
        "a setting that loses records is changed like any other",
        pipeline.ops.topics.plan._of_one,
        "        elif change.loss and not allowed:\n",
        "        elif False:\n",
        f"{PLAN} refused_by_name",
    ),
    Broken(
        "a tombstone alone deletes",
        pipeline.ops.topics.plan._deletion,
        "    problems = [] if allowed else [_lossy(topic.name, ",
        "    problems = [] if True else [_lossy(topic.name, ",
        f"{PLAN} tombstone",
    ),
    Broken(
        "a topic is changed while something of it is refused",
        pipeline.ops.topics.plan.TopicPlan.to_do,
        "        return self.action is not TopicAction.NONE and not self.problems\n",
        "        return self.action is not TopicAction.NONE\n",
        "tests/ops/topics/test_applying.py does_not_hold_up",
    ),
    Broken(
        "a load without ids goes where its topic is declared with them",
        pipeline.ops.topics.checking.check_load,
        "    if declared is not None and declared.id:\n",
        "    if declared is None:\n",
        "tests/ops/topics/test_checking.py load_without_ids",
    ),
    Broken(
        "a plan for an empty cluster passes every setting",
        pipeline.ops.topics.cluster_state.plan_for_cluster,
        "    return plan if facts.topics else _asked(plan, cluster)\n",
        "    return plan\n",
        "tests/ops/topics/test_applying.py misspelt_setting",
    ),
    Broken(
        "scalars are read by the library's rules, not by the core schema",
        pipeline.ops.topics.yaml_documents.parse,
        "    yaml.Resolver = _CoreResolver\n",
        "",
        "tests/ops/topics/test_declarations.py core_schema",
    ),
    Broken(
        "an error about an empty value names the line of the next field",
        pipeline.ops.topics.yaml_documents.parse,
        "    _place_empty_values(root)\n",
        "",
        "tests/ops/topics/test_declarations.py named_with_its_line",
    ),
    Broken(
        "an overwritten file is spaced anew",
        pipeline.ops.topics.writing._merged,
        "            result += new.lines if is_changed else entry.lines\n",
        "            result += new.lines\n",
        f"{WRITING} other_lines_keep",
    ),
    Broken(
        "comments go with the setting above them",
        pipeline.ops.topics.writing._merged,
        "added.get(entry.path, []) + entry.after\n",
        "added.get(entry.path, []) + (entry.after if entry.path in written else [])\n",
        f"{WRITING} after_a_removed_setting",
    ),
    Broken(
        "a text that older readers take for a flag is written without quotes",
        pipeline.ops.topics.yaml_documents.quoted,
        "    return text if is_text and text.isprintable() else",
        "    return text if True else",
        f"{WRITING} read_back_by_both",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)
