"""How an acquire entry records the replays topic, the only input that may be missing. Pure.

The topic does not exist for an owner whose release has no dead letters, nor for one that started before the topic was
created. Such an owner keeps the topic's id and the position of the last owner that read it. The next owner that finds
the topic compares the ids:

    row  before                 now             the acquire entry says
    1    read or never seen     a topic         that topic; another one is refused by `core.recovery.check_identity`
    2    read                   none            the old id, `absent`; the position stays
    3    absent                 none            the same
    4    absent                 the same id     that topic; the position counts again
    5    absent                 another id      that topic, `replaced`: it begins at its first record
    6    position without id    ends before it  the same as row 5. Earlier releases did not keep the id
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from pipeline.core.journal_format import Identity, InputFacts
from pipeline.core.names import is_replays
from pipeline.core.position import AppliedPosition

__all__ = ["acquired_identity"]


def acquired_identity(
    before: AppliedPosition, now: Identity, ends_before: Callable[[str, int], bool]
) -> Identity:
    """The identity of the acquire entry after `before`, for an owner that found `now`.

    `ends_before`: whether a topic's partition of the task ends before a position.
    """
    inputs: dict[str, InputFacts] = {}
    for topic, current in now.inputs.items():
        replaced = is_replays(topic) and _replaced(before, topic, current, ends_before)
        inputs[topic] = msgspec.structs.replace(current, replaced=replaced) if replaced else current
    for topic, facts in before.identity.inputs.items():
        if is_replays(topic) and topic not in inputs:  # rows 2 and 3
            inputs[topic] = InputFacts(facts.topic_id, facts.partitions, absent=True)
    return msgspec.structs.replace(now, inputs=inputs)


def _replaced(
    before: AppliedPosition, topic: str, current: InputFacts, ends_before: Callable[[str, int], bool]
) -> bool:
    facts, position = before.identity.inputs.get(topic), before.positions.get(topic)
    if position is None:
        return False
    if facts is None:  # row 6
        return ends_before(topic, position)
    return facts.absent and facts.topic_id != current.topic_id  # rows 4 and 5
