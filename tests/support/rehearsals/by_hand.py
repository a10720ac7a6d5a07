"""Rehearsals without a drill. Most pages break something with a small program that they save."""

from __future__ import annotations

from tests.support.rehearsals.running import MORE, Rehearsal

__all__ = ["BY_HAND"]

# The record of these rehearsals has text where the type wants a number. These commands widen the type, which is a
# repair, and they let the record stop its task first.
_STOP = """sed -i 's/, on_error="dead_letter"//' delays.py"""
_WIDEN = """
sed -i 's/    dep_delay: int | None/    dep_delay: int | str | None/' delays.py
sed -i 's/(event.value.dep_delay or 0)/(event.value.dep_delay if type(event.value.dep_delay) is int else 0)/' delays.py
"""

_DRILLS = """[drills]
allow = ["flight-delays"]
poison_topics = ["flights"]
"""

BY_HAND = {
    "input-expired": Rehearsal(
        """
        @ Rehearse 1
        logged task_failed
        @ Steps 1 finds problems
        @ Steps 3
        @ Steps 4
        kill $WORKER
        wait $WORKER || true
        pipeline worker delays:app & WORKER=$!
        idle
        @ Verify 1
        """,
        says=("is outside of the partition's offsets",),
        left_out={"Steps 2": "the declaration has no retention that could be raised"},
    ),
    "journal-check-failed": Rehearsal(
        """
        @ Rehearse 1
        logged task_failed
        kill $WORKER
        wait $WORKER || true
        OFFSET=$(grep -o "is damaged at offset [0-9]*" worker.log | head -n 1 | grep -o "[0-9]*$")
        @ Steps 1, 44 is '$OFFSET'
        @ Steps 2
        @ Steps 3
        pipeline worker delays:app & WORKER=$!
        idle
        @ Verify 1
        """,
        says=("flight-delays.main.journal[0] is damaged at offset",),
    ),
    "journal-lost": Rehearsal(
        """
        @ Rehearse 1
        ended 1 $WORKER
        @ Steps 1
        @ Steps 2 finds problems
        @ Steps 3
        @ Steps 4
        pipeline worker delays:app & WORKER=$!
        idle
        @ Verify 1
        """,
        says=(
            "error: group flight-delays/main existed before (a local state of task flight-delays/main/0),",
            "but its journal topic is gone",
        ),
    ),
    "nothing-to-restore-from": Rehearsal(
        """
        @ Rehearse 1
        logged task_failed
        @ Steps 1
        @ Steps 2 finds problems, /var/lib/checkpoints is $PWD/store
        @ Steps 3 finds problems
        kill $WORKER
        wait $WORKER || true
        @ Steps 4
        idle
        @ Steps 5
        @ Verify 1
        """,
        says=("nothing to restore flight-delays/main/0 from: the journal begins at entry",),
    ),
    "topic-recreated": Rehearsal(
        """
        @ Rehearse 1
        ended 1 $WORKER
        @ Steps 1 finds problems
        @ Steps 2
        @ Steps 3
        pipeline worker delays:app & WORKER=$!
        idle
        @ Verify 1
        """,
        says=("topic flights was deleted and created again",),
    ),
    "checkpoint-store-unavailable": Rehearsal(
        f"""
        @ Rehearse 1
        logged checkpoint_registered
        @ Rehearse 2
        logged checkpoint_store_unavailable
        pipeline status flight-delays | grep "4 of 4 tasks live"
        @ Steps 1 finds problems, /var/lib/checkpoints is $PWD/store
        mv store.away store
        logged checkpoint_store_available
        @ Steps 1, /var/lib/checkpoints is $PWD/store
        @ Verify 1, /var/lib/checkpoints is $PWD/store
        {MORE}
        pipeline produce flights more.csv --key carrier --rate 30 & LOAD=$!
        @ Rehearse 3
        """,
        says=(
            "checkpoint_store_unavailable",
            "its directory",
            "does not exist",
            "checkpoint_store_available",
        ),
        settings=_DRILLS,
    ),
    "handler-hangs": Rehearsal(
        """
        @ Rehearse 1
        logged handler_has_not_returned
        until pipeline status hang | grep "handler wait has not returned"; do sleep 1; done
        pipeline status hang || true
        @ Steps 1
        @ Steps 2
        @ Steps 3
        ended 1 $PID
        sed -i 's/3_600/0/' hang.py
        pipeline worker hang:app & PID=$!
        idle hang
        pipeline status hang
        """,
        says=(
            "problem: main/0-3: handler wait has not returned from flights[0] offset 0 since",
            "all tasks of this process wait",
            "follow runbooks/handler-hangs.md",
            "worker_exit_forced",
            "hang.py",
            '"offset":0,',
        ),
    ),
    "native-crash": Rehearsal(
        """
        for each in 1 2 3; do
        pipeline status crash || true
        @ Rehearse 1
        done
        pipeline worker crash:app & WORKER=$!
        logged task_failed
        @ Steps 1
        kill $WORKER
        wait $WORKER || true
        sed -i 's/ctypes.string_at(0)/pass/' crash.py
        pipeline worker crash:app & WORKER=$!
        idle crash
        @ Verify 1
        """,
        says=(
            "exit code 139",
            "previous_process_crashed",
            '"crashes": 3',
            "task crash/main/0: the record flights[0] offset 0 cannot be processed by handle: NativeCrash:",
            "the process crashed natively 3 times while it handled this record",
        ),
    ),
    "partitions-changed": Rehearsal(
        """
        pipeline worker delays:app & WORKER=$!
        live
        @ Rehearse 1
        ended 1 $WORKER
        for each in A B C D E F G H I J K L M N O P; do echo "$each$each,1"; done >> flights.csv
        pipeline produce flights flights.csv --key carrier --null NA --name more
        @ Steps 1 finds problems
        @ Steps 2
        @ Steps 3
        @ Steps 4
        @ Steps 5
        until pipeline status flight-delays-2 | grep "12 of 12 tasks live, lag 0"; do sleep 1; done
        @ Steps 6
        BEFORE=$(pipeline consume flights --partition 4 --max 1 | grep -o "20[0-9-]*T[0-9:.]*Z")
        @ Steps 7, 2026-11-23T15:27:48.979Z is $BEFORE
        @ Steps 8
        pipeline worker delays:app & OLD=$!
        ended 1 $OLD
        @ Verify 1
        """,
        says=(
            "task flight-delays/main/3: topic flights had 4 partitions and has 6",
            "flights 6 (was 4) flights-2 12",
            "app flight-delays was retired at",
            "app flight-delays-2 has taken its place",
        ),
        timeout_s=300,
    ),
    "poison-record": Rehearsal(
        f"""
        {_STOP}
        pipeline worker delays:app & PID=$!
        live
        @ Rehearse 1
        logged task_failed
        @ Steps 1 finds problems
        kill $PID
        wait $PID || true
        sed -i 's/handler(flights)/handler(flights, on_error="dead_letter")/' delays.py
        pipeline worker delays:app & PID=$!
        idle
        @ Steps 2
        pipeline produce flights bad.jsonl --key carrier --name another
        idle
        pipeline deadletters list delays:app
        kill $PID
        wait $PID
        {_WIDEN}
        pipeline worker delays:app & PID=$!
        idle
        @ Steps 3
        idle
        pipeline deadletters list delays:app
        @ Steps 4
        @ Verify 1
        @ Rehearse 2
        """,
        settings=_DRILLS,
        says=(
            "task flight-delays/main/1: the record flights[1] offset 4 cannot be processed by add_delay:",
            "ValidationError: Expected `int | null`, got `str` - at `$.dep_delay`",
        ),
    ),
    "sink-positions-lost": Rehearsal(
        """
        @ Rehearse 1
        idle rows
        @ Rehearse 2
        ended 1 $WORKER
        @ Steps 2
        @ Steps 3
        pipeline worker rows:app & WORKER=$!
        idle rows
        @ Verify 1
        sqlite3 rows.db "SELECT count(*) = 5 AND count(DISTINCT place) = 5 FROM flights" | grep -x 1
        """,
        says=(
            "error: group rows/copies existed before (committed offsets of consumer group rows.copies),",
            "but its database has no positions of it",
        ),
        left_out={"Steps 1": "PostgreSQL; the rehearsal of the page uses SQLite"},
    ),
    "task-failed": Rehearsal(
        f"""
        {_STOP}
        pipeline worker delays:app --worker-id a --state-dir state/a --http-port 8080 & PID=$!
        live
        @ Rehearse 1 finds problems
        logged task_failed
        until pipeline status flight-delays | grep "3 of 4 tasks live"; do sleep 1; done
        @ Steps 1 finds problems
        @ Steps 2
        {_WIDEN}
        @ Steps 3
        idle
        @ Verify 1
        """,
        says=(
            "problem: main/1: failed: the record flights[1] offset 4 cannot be processed by add_delay:",
            "ValidationError: Expected `int | null`, got `str` - at `$.dep_delay`",
        ),
    ),
}
