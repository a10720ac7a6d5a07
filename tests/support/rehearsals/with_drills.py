"""Rehearsals with drills: two workers with input that does not end, the drill, and the steps of the page."""

from __future__ import annotations

from tests.support.rehearsals.running import BEGIN, MORE, Rehearsal

__all__ = ["WITH_DRILLS"]

_SETTINGS = """[worker]
checkpoint_store = "file://DIRECTORY/store"
checkpoint_interval_s = 2

[drills]
allow = ["flight-delays"]
steady_s = 2
"""
_STORE = "mkdir store\n"
_LOAD = f"""
{MORE}
pipeline produce flights more.csv --key carrier --null NA --rate 30 & LOAD=$!
until [ "$(ls store/*/flight-delays/main/0/manifests 2> /dev/null | wc -l)" -ge 3 ]; do sleep 1; done
"""
_A = "pipeline worker delays:app --worker-id a --state-dir state/a --http-port 8080 & A=$!\n"
_B = "pipeline worker delays:app --worker-id b --state-dir state/b --http-port 8081 & B=$!\n"
_FLEET = f"{_STORE}{BEGIN}{_A}{_B}live\n{_LOAD}"
# A row on the disk becomes another one than the journal says.
_DAMAGE = """
import sys
from rocksdict import Options, Rdict
state = Rdict(sys.argv[1], Options(raw_mode=True))
key, value = next((key, value) for key, value in state.items() if b'"minutes":' in value and b"AA" in key)
state[key] = value.replace(b'"minutes":', b'"minutes":9')
state.close()
"""


def _with_fleet(script: str, *says: str) -> Rehearsal:
    return Rehearsal(script, says, settings=_SETTINGS, begin=_FLEET, timeout_s=220)


WITH_DRILLS = {
    "checkpoint-damaged": _with_fleet(
        """
        @ Rehearse 1
        logged checkpoint_refused
        @ Steps 1 finds problems
        @ Steps 2
        until pipeline checkpoints verify flight-delays; do sleep 2; done
        @ Verify 1
        """,
        "checkpoint_refused",
    ),
    "input-lag": _with_fleet(
        """
        kill $A $B
        wait $A $B
        pipeline status flight-delays || true
        pipeline worker delays:app --worker-id a --state-dir state/a --http-port 8080 & A=$!
        pipeline worker delays:app --worker-id b --state-dir state/b --http-port 8081 & B=$!
        live
        PID=$B
        @ Steps 1
        @ Steps 2
        @ Steps 3
        @ Steps 4
        live
        @ Rehearse 1
        @ Verify 1
        """,
        "handler_busy_ratio",
        "commit_wait_seconds_total",
    ),
    "replace-workers": _with_fleet(
        """
        @ Rehearse 1
        @ Steps 1
        @ Steps 2
        @ Verify 1
        """,
        "longest pause",
    ),
    "shadow-replay-differs": _with_fleet(
        """
        kill $LOAD
        mkdir changed
        cp -r delays.py pipeline.toml topics changed
        sed -i 's/seen.flights + 1/seen.flights + 2/' changed/delays.py
        cd changed
        @ Rehearse 1 finds problems
        @ Steps 1
        cd ..
        @ Steps 2
        AT=$(pipeline consume flights --partition 1 --json | tail -n 1 | grep -o '"offset":[0-9]*')
        @ Steps 3, flights/1/300 is flights/1/${AT#*:}
        @ Verify 1
        """,
        "first different in offsets",
        "state: task main/1",
        "output: carrier-delays[",
    ),
    "state-differs": _with_fleet(
        f"""
        kill $LOAD $B
        wait $B
        idle
        kill $A
        wait $A
        cat > damage.py <<'END'
        {_DAMAGE}
        END
        python damage.py state/a/flight-delays/main/1
        PIPELINE_CHECKPOINT_INTERVAL_S=600 {_A}
        live
        pipeline drill run replay-from-checkpoint --task 1 --yes && exit 99 || [ $? = 1 ]
        @ Steps 1
        @ Steps 2
        AT=$(pipeline consume flights --partition 1 --json | tail -n 1 | grep -o '"offset":[0-9]*')
        @ Steps 3, flights/1/0 is flights/1/${{AT#*:}}
        kill $A
        wait $A
        mv state/a/flight-delays/main/1 differs
        {_A}
        live
        @ Verify 1
        @ Rehearse 1
        """,
        "state: task main/1",
        "table totals, key AA: live",
        "wrote it last, from flights offsets",
    ),
    "task-not-live": _with_fleet(
        """
        @ Rehearse 1
        @ Steps 1
        @ Steps 2
        @ Steps 3
        @ Verify 1
        """,
    ),
    "tasks-change-workers": _with_fleet(
        """
        @ Rehearse 1
        @ Steps 1
        @ Steps 2
        PID=$B
        @ Steps 3
        wait $B || true
        live
        @ Verify 1
        """,
        "task_fenced",
    ),
    "worker-down": _with_fleet(
        """
        @ Rehearse 1
        @ Steps 2
        kill -9 $A $(process_of b)
        until pipeline status flight-delays | grep "no worker of flight-delays is alive"; do sleep 1; done
        @ Steps 1 finds problems
        @ Steps 3
        live
        @ Verify 1
        """,
        "problem: no worker of flight-delays is alive",
    ),
}
