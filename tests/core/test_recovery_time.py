"""The prediction of a recovery, and the measurements that it uses."""

from __future__ import annotations

import pytest

from pipeline.core.recovery_time import (
    DEFAULT_SPEED,
    FIRST_COMMIT_S,
    NEWEST,
    RecoveryMeter,
    RecoverySpeed,
    RestoreWork,
    TimedBytes,
    detection_s,
    median_speed,
    predicted_restore_s,
)

MB = 1_000_000


def test_a_prediction_is_the_sum_of_its_parts() -> None:
    """An operator who doubles the state must see the copy double, and nothing else."""
    speed = RecoverySpeed(1.0, 0.5, 100 * MB, 10 * MB)
    assert predicted_restore_s(0, 0, speed) == 0.5
    assert predicted_restore_s(200 * MB, 30 * MB, speed) == pytest.approx(0.5 + 2.0 + 3.0)


def test_a_lost_worker_is_noticed_after_its_session() -> None:
    """A drill of a second that predicts ten is not wrong: Kafka waits so long."""
    assert detection_s(1.0, 1.0) == pytest.approx(10.5)
    assert detection_s(1.0, 1.0, watched=True) < 1.0
    assert detection_s(1.0, 3.0) - detection_s(1.0, 1.0) == pytest.approx(2.0)


def test_without_a_measurement_the_defaults_are_used() -> None:
    """An app that was never restored has a prediction, too."""
    assert RecoveryMeter().speed() == DEFAULT_SPEED
    assert median_speed([]) == DEFAULT_SPEED


def test_a_new_process_continues_with_the_earlier_speed() -> None:
    """After a restart on the same disk nothing was copied, and the next loss of the disk would be predicted badly."""
    meter = RecoveryMeter()
    meter.resume(RecoverySpeed(1.0, 0.3, 400 * MB, 90 * MB))
    assert meter.speed() == RecoverySpeed(1.0, 0.3, 400 * MB, 90 * MB)
    meter.add(RestoreWork(0.5, replayed=TimedBytes(0.0, 1.0, 10 * MB)))
    assert meter.speed() == pytest.approx((1.0, 0.3 * 2**NEWEST, 400 * MB, 90 * MB / 9**NEWEST))


def test_predictions_do_not_follow_a_single_restore() -> None:
    """Restores that take 1.7 and 2.8 s in turn would each be predicted with the time of the other."""
    before = RecoverySpeed(1.0, 0.4, 1_000 * MB / 2.2, 90 * MB)
    for seconds in (2.8, 1.7) * 8:
        meter = RecoveryMeter()
        meter.resume(before)
        assert 1 / 1.4 < seconds * before.copy_bytes_per_s / (1_000 * MB) < 1.4
        meter.add(RestoreWork(0.3, TimedBytes(0.0, seconds, 1_000 * MB)))
        before = meter.speed()


def test_a_default_that_was_written_is_not_a_measurement() -> None:
    """The first process of an app restores nothing; its defaults would weigh three quarters in the next prediction."""
    meter = RecoveryMeter()
    meter.resume(RecoveryMeter().speed())
    meter.add(RestoreWork(0.2, TimedBytes(0.0, 1.0, 900 * MB)))
    assert meter.speed().copy_bytes_per_s == 900 * MB
    assert meter.speed().replay_bytes_per_s == DEFAULT_SPEED.replay_bytes_per_s


def test_tasks_that_are_copied_at_the_same_time_share_the_speed() -> None:
    """Their own speeds would add up to more than the disk has, or promise a fraction of it."""
    meter = RecoveryMeter()
    meter.add(RestoreWork(0.2, TimedBytes(10.0, 12.0, 50 * MB)))
    meter.add(RestoreWork(0.4, TimedBytes(11.0, 14.0, 150 * MB)))
    meter.add(RestoreWork(0.3, TimedBytes(20.0, 21.0, 50 * MB)))
    speed = meter.speed()
    assert speed.copy_bytes_per_s == pytest.approx(250 * MB / 5)
    assert speed.overhead_s == pytest.approx(0.3 + FIRST_COMMIT_S)


def test_a_few_bytes_say_nothing_about_a_speed() -> None:
    """A genesis entry that took 50 ms would predict hours for a gigabyte."""
    meter = RecoveryMeter()
    meter.add(RestoreWork(0.2, TimedBytes(0.0, 0.1, 1_000), TimedBytes(0.1, 0.15, 500)))
    assert meter.speed()[2:] == DEFAULT_SPEED[2:]
    assert meter.speed().overhead_s == pytest.approx(
        0.35 + FIRST_COMMIT_S
    )  # requests take as long for a few bytes


def test_a_start_that_waited_for_kafka_is_not_a_speed() -> None:
    """After an outage of an hour, every prediction would contain that hour."""
    meter = RecoveryMeter()
    meter.started(3_600.0)
    assert meter.speed().start_s == DEFAULT_SPEED.start_s
    meter.started(2.5)
    assert meter.speed().start_s == 2.5


def test_one_slow_worker_does_not_change_the_prediction_of_all() -> None:
    """It is not known which worker will restore a task."""
    slow, fast = RecoverySpeed(9.0, 9.0, 1.0, 1.0), RecoverySpeed(1.0, 1.0, 9.0, 9.0)
    assert median_speed([fast, slow, fast]) == fast
