"""TestDriver: runs an app in memory, with the real runtime on in-memory ports, and can crash and restart it.

    driver = TestDriver(app)
    driver.send(flights, "AA", Flight(...))
    driver.run()
    assert driver.outputs(delays)[0].value.flights == 1

Deterministic: one thread, a manual clock, seeded randomness. `SimulatedProcess` runs the worker. This module has what
a test sends, what it reads, and the commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pipeline.api.declarations import Table, Topic, declared_table, declared_topic
from pipeline.api.event import Event
from pipeline.api.histories import DeclaredHistory, History
from pipeline.api.joins import DeclaredJoin, Join
from pipeline.api.sinks import Sink, Sqlite
from pipeline.api.table import table_prefix
from pipeline.api.timers import DeclaredTimers, Timers
from pipeline.api.windows import DeclaredWindow, Window, WindowKey
from pipeline.core.entry_body import row_prefixes
from pipeline.core.event_time import clock_key, unpack_state
from pipeline.core.inputs import TaskInputs, ordinal_of, topic_of
from pipeline.core.names import EVENT_ID_HEADER, GroupId
from pipeline.core.position import decode_position
from pipeline.errors import InputError
from pipeline.ops.dead_letters.letters import Choice
from pipeline.ops.dead_letters.replaying import Replayer
from pipeline.ports import Output, TopicSpec
from pipeline.runtime.reset import plan_reset, reset_task, start_at
from pipeline.testing.simulated_process import SimulatedCrash, SimulatedProcess

__all__ = ["SimulatedCrash", "TestDriver"]

K = TypeVar("K")
V = TypeVar("V")


class TestDriver(SimulatedProcess):
    """Runs an app on an in-memory Kafka and disk, with the real runtime. It can crash and restart the worker.

    Deterministic: one thread, a clock that the test controls, seeded randomness. The topics that the app declares are
    created. They accept records of any time; `broker.configure` gives them other settings.

    Args:
        app: The app.
        partitions: The number of partitions of each topic. Default: the largest declared number of tasks, or 1 if the
            app declares none.
        seed: For nonces and jitter, and with `deferred` for the order of commits and restores.
        deferred: Commits and restores run later than the step that starts them, in an order that depends on `seed`.
        settings: The worker's settings. With a `checkpoint_store`, checkpoints are made in memory, whatever its URL.
        databases: The databases of sinks. Default: empty ones in memory, for whatever sinks name.
            `DriverDatabases(connect=True)` opens the databases and files that they name.
        tasks: The number of tasks of each group, whatever the app declares. Default: as a worker chooses it. Results
            do not depend on it.

    Attributes:
        app: The app.
        broker: The in-memory Kafka.
        checkpoints: The in-memory checkpoint store.
        clock: The clock of worker and Kafka.
        crash_log: The records at which a process has crashed, in memory.
        crashed: Whether the worker has crashed and was not restarted.
        databases: The databases of sinks.
        settings: The worker's settings.
        stores: The local state of each task, in memory.

    Raises:
        ConfigError: The app or a setting is wrong. The start of the worker, in `run`, checks more.

    Example:
        ```python
        driver = TestDriver(app)
        driver.send(flights, "AA", Flight("AA", 12))
        driver.crash_at(Step.AFTER_COMMIT)
        driver.run()
        driver.restart(empty_disk=True)
        driver.run()
        assert driver.table(totals) == {"AA": Delay(1, 12)}
        ```
    """

    __test__ = False

    def send(
        self,
        topic: Topic[K, V],
        key: K,
        value: V,
        *,
        timestamp_ms: int | None = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        event_id: bytes | None = None,
        partition: int | None = None,
    ) -> None:
        """Produce an input record, to the partition of its key as Kafka does.

        Args:
            topic: A topic of the app.
            key: Of the topic's key type.
            value: Of the topic's value type.
            timestamp_ms: Milliseconds since the epoch. Default: the driver's clock.
            headers: Pairs of a name and bytes (or None).
            event_id: Adds the header `event-id`.
            partition: Another partition than that of the key.

        Raises:
            TypeError: The key or the value has a wrong type.
            ValueError: The key or the value cannot be encoded.

        Example:
            ```python
            driver.send(flights, "AA", Flight("AA", 12), event_id=b"1")
            ```
        """
        if event_id is not None:
            headers = [*headers, (EVENT_ID_HEADER, event_id)]
        declared = declared_topic(self._declared.declared(topic))
        self.send_raw(
            topic,
            declared.key.encode(key),
            declared.value.encode(value),
            timestamp_ms=timestamp_ms,
            headers=headers,
            partition=partition,
        )

    def send_raw(
        self,
        topic: Topic[Any, Any],
        key: bytes | None,
        value: bytes | None,
        *,
        timestamp_ms: int | None = None,
        headers: Sequence[tuple[str | bytes, bytes | None]] = (),
        partition: int | None = None,
    ) -> None:
        """Produce bytes unchanged, even if the topic's types do not allow them.

        Args:
            topic: A topic of the app.
            key: The key's bytes, or None.
            value: The value's bytes, or None.
            timestamp_ms: Milliseconds since the epoch. Default: the driver's clock.
            headers: Pairs of a name and bytes (or None). A name of bytes is written unchanged: other clients write
                names that are not valid UTF-8.
            partition: Another partition than that of the key.

        Example:
            ```python
            driver.send_raw(flights, b"AA", b"not JSON")
            ```
        """
        when = self.clock.wall_ms() if timestamp_ms is None else timestamp_ms
        raw: Any = headers
        self.broker.produce(
            Output(self._declared.declared(topic).name, key, value, when, raw), partition=partition
        )

    def reset(self, *start: str, group: str = "main", partition: int | None = None) -> None:
        """Do what `pipeline reset` does. A worker that runs continues from there.

        Args:
            start: Where to start, as the option `--from` takes it: `[TOPIC=]earliest|latest|OFFSET|TIME`. Default:
                `earliest`.
            group: The group.
            partition: Only this partition of the inputs. Default: all.

        Raises:
            PipelineError: The reset is not possible.

        Example:
            ```python
            driver.reset("earliest", group="archive")
            ```
        """
        groups = [found for found in self._declared.groups if found.name == group]
        environment = self.environment()
        for task in list(
            plan_reset(self._declared, groups, None, start_at(start or ("earliest",)), environment, partition)
        ):
            reset_task(task, "reset", environment, self.settings)
        self.clock.advance(self.settings.check_interval_s)  # an idle worker looks for it this often

    def recreate(self, topic: Topic[Any, Any]) -> None:
        """Delete a topic and create it again, empty, with as many partitions.

        Args:
            topic: A topic of the app.

        Example:
            ```python
            driver.recreate(flights)
            ```
        """
        name = self._declared.declared(topic).name
        info = self.broker.describe(name)
        partitions = info.partitions if info is not None else 1
        self.broker.delete(name)
        self.broker.create(TopicSpec(name, partitions))

    def outputs(self, topic: Topic[K, V]) -> list[Event[K, V]]:
        """The committed records of a topic, also after a crash.

        Args:
            topic: A topic of the app.

        Returns:
            Events, partition by partition, in order.

        Example:
            ```python
            assert [event.value for event in driver.outputs(delays)] == [Delay(1, 12)]
            ```
        """
        declared = declared_topic(self._declared.declared(topic))
        decode_key, read_value = declared.key.decode, declared.value.read
        return [
            Event(decode_key(record.key()), read_value(record), record)
            for record in self.broker.records(declared.name)
        ]

    def dead_letters(self, group: str = "main") -> list[Event[bytes | None, bytes | None]]:
        """The committed dead letters of a group.

        Args:
            group: The group.

        Returns:
            Events with keys and values as bytes, partition by partition, in order.

        Example:
            ```python
            assert [event.value for event in driver.dead_letters()] == [b"not JSON"]
            ```
        """
        name = GroupId(self._declared.name, group).dead_letter_topic
        if self.broker.describe(name) is None:
            return []
        return [Event(record.key(), record.value(), record) for record in self.broker.records(name)]

    def replay_dead_letters(
        self, group: str = "main", *, again: bool = False, error: str = "", partition: int | None = None
    ) -> int:
        """Do what `pipeline deadletters replay` does. `run` then processes the replayed records.

        Args:
            group: The group.
            again: Also those that were replayed before.
            error: Only those whose error contains this text.
            partition: Only those of this partition.

        Returns:
            The number of replayed records.

        Raises:
            InputError: A dead letter cannot be replayed. The others were.

        Example:
            ```python
            driver.restart(app=fixed_app)
            assert driver.replay_dead_letters() == 1
            driver.run()
            ```
        """
        found = next(g for g in self._declared.groups if g.name == group)
        replayer = Replayer(found, self.environment(), self.settings.retry_backoff_ms, again=again)
        replayed = replayer.run(Choice(partition=partition, error=error))
        for refused in replayed.refused:
            raise InputError(f"dead letter {refused.letter.name} cannot be replayed: {refused.reason}")
        return replayed.letters

    def table(self, table: Table[K, V]) -> dict[K, V]:
        """The rows of a table on the simulated disk, over all tasks: after `run`, all committed rows.

        It also reads what a crashed process left. That process may have crashed after a commit and before it wrote the
        rows. `restart` and `run` write them.

        Args:
            table: A table of the app.

        Returns:
            Values by key. Of a key that several tasks have, the value of the last task.

        Example:
            ```python
            assert driver.table(totals) == {"AA": Delay(1, 12)}
            ```
        """
        result: dict[K, V] = {}
        for rows in self.table_by_partition(table).values():
            result.update(rows)
        return result

    def table_by_partition(self, table: Table[K, V]) -> dict[int, dict[K, V]]:
        """The rows of a table, as `table` reads them, for each partition of the inputs.

        Args:
            table: A table of the app.

        Returns:
            Values by key, by partition.

        Example:
            ```python
            assert driver.table_by_partition(totals)[0] == {"AA": Delay(1, 12)}
            ```
        """
        declared = declared_table(self._declared.declared(table))
        result: dict[int, dict[K, V]] = {partition: {} for partition in self._partitions_of(declared.group)}
        for task, position in self.stores.positions().items():
            if (task.app, task.group) != (self._declared.name, declared.group):
                continue
            identity = decode_position(position, str(task)).identity
            partitions = TaskInputs(task.number, identity.tasks).partitions(len(result))
            for partition, rows in zip(partitions, row_prefixes(identity, task.number), strict=False):
                prefix, stored = rows + table_prefix(declared.name), self.stores.contents(task)
                clock = unpack_state(stored.get(clock_key(rows)) if declared.fades else None, str(task))
                result[partition] = {
                    shown: found
                    for key, value in sorted(stored.items())
                    if key.startswith(prefix) and (data := declared.visible(value, clock)) is not None
                    for shown, found in declared.table_rows(key[len(prefix) :], data)
                }
        return result

    def windows(self, window: Window[K, V]) -> dict[tuple[K, int], V]:
        """The rows of a window on the simulated disk, over all tasks, as `table` reads them, that were not removed yet.

        Args:
            window: A window of the app.

        Returns:
            Values by key and start in milliseconds. Of a row that several tasks have, the value of the last task.

        Example:
            ```python
            assert driver.windows(hourly) == {("ann", start_ms): 5}
            ```
        """
        if not isinstance(window, DeclaredWindow):
            raise InputError(f"{window!r} is not a window", hint="use what app.window(...) returned")
        rows: dict[WindowKey, V] = self.table(window)
        return {(row.key, row.start_ms): value for row, value in rows.items()}

    def timers(self, timers: Timers[K]) -> dict[K, int]:
        """The timers that are set on the simulated disk, over all tasks, as `table` reads them.

        Args:
            timers: Timers of the app.

        Returns:
            Due times in milliseconds, by key. Of a key that several tasks have, that of the last task.

        Raises:
            InputError: They are not timers.

        Example:
            ```python
            assert driver.timers(reminders) == {"order-5": at_ms + 900_000}
            driver.advance(900 + 60)
            assert driver.timers(reminders) == {}
            ```
        """
        if not isinstance(timers, DeclaredTimers):
            raise InputError(f"{timers!r} are not timers", hint="use what app.timers(...) returned")
        return self.table(timers)

    def history(self, history: History[K, V]) -> dict[K, list[tuple[int, V]]]:
        """The values of a history on the simulated disk, over all tasks, as `table` reads them, that are not too old.

        Args:
            history: A history of the app.

        Returns:
            (time in ms, value) by key, in order of time. Of a key that several tasks have, the values of all.

        Example:
            ```python
            assert driver.history(recent) == {"ann": [(at_ms, 500)]}
            ```
        """
        if not isinstance(history, DeclaredHistory):
            raise InputError(f"{history!r} is not a history", hint="use what app.history(...) returned")
        found: dict[K, list[tuple[int, V]]] = {}
        for rows in self.table_by_partition(history).values():
            for place, values in rows.items():
                found.setdefault(place.key, []).extend(values)
        for values in found.values():
            values.sort(key=lambda item: item[0])
        return found

    def joins(self, join: Join[K, Any, Any]) -> dict[tuple[str, K], list[Any]]:
        """The events of a join that wait on the simulated disk, over all tasks, as `table` reads them.

        Args:
            join: A join of the app.

        Returns:
            Their values in order of arrival, by side (`"left"` or `"right"`) and key. Those that have matched are among
            them for as long as they may match again.

        Example:
            ```python
            assert driver.joins(paid) == {("left", "order-5"): [Order("ann", 500)]}
            ```
        """
        if not isinstance(join, DeclaredJoin):
            raise InputError(f"{join!r} is not a join", hint="use what app.join(...) returned")
        found: dict[tuple[str, K], list[Any]] = {}
        for side in join.sides:
            for rows in self.table_by_partition(side).values():
                for key, events in rows.items():
                    found.setdefault((side.side, key), []).extend(each.value for each in events)
        return found

    def rows(self, sink: Sink[Any, Any]) -> list[dict[str, Any]]:
        """The committed rows of a sink's table in memory.

        Args:
            sink: A sink of the app.

        Returns:
            Values by column, for each row.

        Example:
            ```python
            assert driver.rows(orders_sink) == [{"id": "order-5", "amount": 5}]
            ```
        """
        return self.databases.rows(sink)

    def sql(
        self, sink: Sqlite[Any, Any], statement: str, parameters: Sequence[Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Run a statement in the in-memory database of a SQLite sink, to create its tables or to query them.

        Args:
            sink: A sink of the app.
            statement: One SQL statement.
            parameters: Its parameters.

        Returns:
            The rows of the result.

        Example:
            ```python
            driver.sql(orders_sink, "CREATE TABLE orders (id TEXT PRIMARY KEY, amount INTEGER)")
            ```
        """
        return self.databases.sql(sink, statement, parameters)

    def log_events(self, name: str) -> list[dict[str, Any]]:
        """The log events with a name, from all workers so far.

        Args:
            name: The name of the events, such as `record_rejected`.

        Returns:
            The fields of each event, oldest first.

        Example:
            ```python
            assert len(driver.log_events("record_rejected")) == 1
            ```
        """
        return [call.kwargs for call in self._logged.calls if call.kwargs.get("event") == name]

    def positions(self, group: str = "main", partition: int = 0) -> dict[str, int]:
        """The committed positions of a partition: for each input topic, the next offset to process.

        Args:
            group: The group.
            partition: The partition.

        Returns:
            Offsets by topic.

        Raises:
            InputError: The worker runs no task of this partition.

        Example:
            ```python
            driver.run()
            assert driver.positions()["flights"] == 1
            ```
        """
        positions = self.task(group, partition).applied.positions
        (tasks,) = (run.plan.task_count for run in self.worker.runs if run.plan.id.group == group)
        return {
            topic_of(name): at for name, at in positions.items() if ordinal_of(name) == partition // tasks
        }

    def _partitions_of(self, group: str) -> range:
        """The partitions of a group's inputs."""
        found = next(g for g in self._declared.groups if g.name == group)
        info = self.broker.describe(found.inputs[0].name)
        return range(info.partitions if info is not None else 0)
