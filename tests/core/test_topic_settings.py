"""When two values of a topic setting are the same, and what changing one costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.topic_settings import SETTINGS, UNMANAGED, loss, same_value
from pipeline.testing.memory_log import DEFAULTS


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("604800000", "604800000", True),
        ("0604800000", " 604800000 ", True),
        ("1e3", "1000", True),
        ("0.50", "0.5", True),
        ("TRUE", "true", True),
        ("compact,delete", "delete, compact", True),
        ("compact,compact", "compact", True),
        ("9223372036854775807", "9223372036854775806", False),  # as floating point numbers they are one
        ("-1", "1", False),
        ("1_000", "1000", False),
        ("inf", "nan", False),
        ("delete", "compact,delete", False),
        ("", "delete", False),
        ("", "", True),
        ("CreateTime", "createtime", False),
    ],
)
def test_values_are_compared_as_kafka_reads_them(one: str, other: str, same: bool) -> None:
    """Equal values must not be reported as drift, and a real difference must not be missed."""
    assert same_value(one, other) is same
    assert same_value(other, one) is same


@given(st.text(), st.text())
def test_any_two_texts_can_be_compared(one: str, other: str) -> None:
    """Whatever a file says is an answer, not a traceback."""
    assert same_value(one, one)
    assert same_value(one, other) == same_value(other, one)


@pytest.mark.parametrize(
    ("name", "before", "after", "lost"),
    [
        ("retention.ms", "604800000", "3600000", "deleted"),
        ("retention.ms", "-1", "604800000", "deleted"),
        ("retention.ms", "604800000", "-1", None),
        ("retention.ms", "5", "6", None),
        ("retention.ms", "5", "05", None),
        ("retention.ms", "5", None, "deleted"),  # to a default that nobody knows
        ("retention.ms", None, "5", "deleted"),
        ("retention.bytes", "-1", "1000", "deleted"),
        ("retention.bytes", "1000", "-1", None),
        ("delete.retention.ms", "86400000", "1", "keys were deleted"),
        ("max.message.bytes", "2000000", "1048588", "rejected"),
        ("max.message.bytes", "1048588", "2000000", None),
        ("max.decompressed.message.bytes", "2147483639", "1000000", "rejected"),
        ("message.timestamp.before.max.ms", "9223372036854775807", "1000", "rejected"),
        ("message.timestamp.after.max.ms", "1000", "3600000", None),
        ("min.insync.replicas", "2", "1", "fewer replicas"),
        ("min.insync.replicas", "1", "2", None),
        ("cleanup.policy", "delete", "compact", "only the last record"),
        ("cleanup.policy", "compact", "delete", "do not keep"),
        ("cleanup.policy", "compact", "delete,compact", "do not keep"),
        ("cleanup.policy", "delete", "compact,delete", "only the last record"),
        ("cleanup.policy", "compact,delete", "compact", None),
        ("cleanup.policy", "delete", "", None),
        ("cleanup.policy", "", "delete", "do not keep"),
        ("cleanup.policy", "delete", None, "only the last record"),
        ("unclean.leader.election.enable", "false", "true", "records are lost"),
        ("unclean.leader.election.enable", "true", "false", None),
        ("unclean.leader.election.enable", "true", "TRUE", None),
        ("unclean.leader.election.enable", "false", None, "records are lost"),
        ("remote.storage.enable", "true", "false", "remote storage"),
        ("remote.storage.enable", "false", "true", None),
        ("segment.bytes", "5", "1", None),
        ("compression.type", "gzip", None, None),
        ("of.tomorrow", "1", "2", None),
    ],
)
def test_what_a_change_loses_is_known(
    name: str, before: str | None, after: str | None, lost: str | None
) -> None:
    """A mistake with these changes loses or refuses records."""
    found = loss(name, before, after)
    assert (found is None) == (lost is None), found
    assert lost is None or lost in str(found)


@given(st.sampled_from(sorted(SETTINGS)), st.text(), st.text())
def test_a_value_that_stays_the_same_loses_nothing(name: str, before: str, after: str) -> None:
    """Also where the cluster will refuse it."""
    assert loss(name, before, before) is None
    loss(name, before, after)


def test_every_setting_of_kafka_has_its_meaning() -> None:
    """Editors show it; and the fake takes no setting that they would not."""
    assert SETTINGS.keys() | UNMANAGED == DEFAULTS.keys()
