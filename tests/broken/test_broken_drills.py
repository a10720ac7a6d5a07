"""Broken on purpose: what a drill refuses, notes, undoes and proves."""

from __future__ import annotations

import pytest

import pipeline.cli.drill
import pipeline.core.names
import pipeline.drills.drill
import pipeline.drills.intent
import pipeline.drills.judge
import pipeline.drills.kafka_drills
import pipeline.drills.network_faults
import pipeline.drills.observation
import pipeline.drills.proxy
import pipeline.drills.runner
import pipeline.drills.workers
from tests.support.breaking import Broken, Copy, name_of

_JUDGE = "tests/drills/test_judge.py"
_INTENTS = "tests/drills/test_intents.py"
_REFUSALS = "tests/drills/test_refusals.py"
_APPLIED = "tests/drills/test_applied_states.py"
_FAULTS = "tests/drills/test_proxy_faults.py"
_STEPS = "tests/drills/test_network_steps.py"

ROWS = [
    Broken(
        "the directory of drills is used for the first time after the steady state",
        pipeline.cli.drill._run,
        "reports.require_usable()",
        "pass",
        "tests/drills/test_runner.py found_at_once",
    ),
    Broken(
        "the group of a chosen task is ignored",
        pipeline.core.names.TaskChoice.means,
        'self.group in {"", task.group}',
        "True",
        f"{_REFUSALS} no_worker_here_runs",
    ),
    Broken(
        "a fork is not seen",
        pipeline.drills.judge.Judge._check_fork,
        "if last is None or parent.chain not in state.continued:",
        "if True:",
        f"{_JUDGE} a_fork_is_found",
    ),
    Broken(
        "the chain of an entry is not compared",
        pipeline.drills.judge.Judge._parent,
        "if parent.seq + 1 == seen.seq and chain_after(parent.chain, chunks) == seen.chain:",
        "if parent.seq + 1 == seen.seq or parent is state.last:",
        f"{_JUDGE} a_missing_entry",
    ),
    Broken(
        "inputs that are committed twice are not seen",
        pipeline.drills.judge.Judge._cover,
        "elif end < start or (start < covered and end > start):",
        "elif False:",
        f"{_JUDGE} positions_that_fall",
    ),
    Broken(
        "a reset counts as duplicates",
        pipeline.drills.judge._reset_inputs,
        "if seen.kind is not EntryKind.RESET:",
        "if True:",
        f"{_JUDGE} a_reset_may",
    ),
    Broken(
        "a reset of one partition excuses duplicates in the others",
        pipeline.drills.judge._reset_inputs,
        "if seen.reset is None or state.inputs.place(name).partition in seen.reset",
        "if True",
        f"{_JUDGE} only_its_position",
    ),
    Broken(
        "a commit of a former owner is accepted",
        pipeline.drills.judge.Judge._entry,
        "elif seen.kind in _OWNED and state.owner and seen.owner not in {state.owner, *state.strangers}:",
        "elif False:",
        f"{_JUDGE} former_owner",
    ),
    Broken(
        "the time without input counts as a pause",
        pipeline.drills.observation.Observer.pause_s,
        "if start < at < end",
        "if False",
        "tests/drills/test_observation.py without_input",
    ),
    Broken(
        "a step is not written before the change",
        pipeline.drills.intent.IntentFile.add,
        "self._write(msgspec.structs.replace(self._intent, steps=(*self._intent.steps, step)))",
        "self._intent = msgspec.structs.replace(self._intent, steps=(*self._intent.steps, step))",
        f"{_INTENTS} before_the_change",
    ),
    Broken(
        "steps are undone in the order of the changes",
        pipeline.drills.intent.undo,
        "for step in reversed(intent.steps):",
        "for step in intent.steps:",
        f"{_INTENTS} in_reverse",
    ),
    Broken(
        "a second process of a worker is started",
        pipeline.drills.intent.StartWorker.undo,
        "found = holder_of(place) or starting_at(place, clock)",
        "found = None",
        f"{_INTENTS} only_if_nothing_holds",
    ),
    Broken(
        "a worker that a killed driller was starting is not seen",
        pipeline.drills.intent.StartWorker.undo,
        "holder_of(place) or starting_at(place, clock)",
        "holder_of(place)",
        f"{_INTENTS} is_starting_is_not",
    ),
    Broken(
        "an added worker that is starting is not stopped",
        pipeline.drills.intent.EndProcess.undo,
        "holder_of(place) or starting_at(place, clock)",
        "holder_of(place)",
        f"{_INTENTS} is_starting_is_ended",
    ),
    Broken(
        "a signal reaches a process that reuses the id",
        pipeline.drills.workers.Process.send,
        "if not self.alive:",
        "if False:",
        f"{_INTENTS} reused_process_id",
    ),
    Broken(
        "an app need not be allowed",
        pipeline.drills.runner.check_allowed,
        "if app not in settings.drills.allow:",
        "if False:",
        f"{_REFUSALS} never_drilled",
    ),
    Broken(
        "a second drill may begin",
        pipeline.drills.runner.Runner._scene,
        "if open_intent is not None:",
        "if False:",
        f"{_REFUSALS} second_drill",
    ),
    Broken(
        "more tasks than allowed may be affected",
        pipeline.drills.runner.Runner._planned,
        "if limit is not None and len(plan.tasks) > limit:",
        "if False:",
        f"{_REFUSALS} more_tasks",
    ),
    Broken(
        "a fault may hit an app that is not steady",
        pipeline.drills.runner.Runner._check_steady,
        "if waiting:",
        "if False:",
        f"{_REFUSALS} not_steady",
    ),
    Broken(
        "a change that the system denies leaves the others in place",
        pipeline.drills.runner.Runner._perform,
        "except (UnrecoveredError, OSError) as error:",
        "except UnrecoveredError as error:",
        "tests/drills/test_runner.py system_denies",
    ),
    Broken(
        "an applied entry that the journal lacks is not reported",
        pipeline.drills.runner.check_applied_states,
        "observer.judge.miss(each.task, each.position, each.worker)",
        "pass",
        f"{_APPLIED} journal_lacks",
    ),
    Broken(
        "an applied entry is looked up by its number",
        pipeline.drills.judge.Judge.has,
        "return chain in self._tasks[task].known",
        "return True",
        f"{_APPLIED} journal_lacks",
    ),
    Broken(
        "a local state of a task that moved away is compared",
        pipeline.drills.runner._applied,
        "if status is None or status.worker != worker.worker:",
        "if status is None:",
        f"{_APPLIED} moved_away",
    ),
    Broken(
        "an entry that the driller could not read is a loss",
        pipeline.drills.runner.check_applied_states,
        "if observer.judge.next_offset(each.task) > each.position.offset:",
        "if True:",
        f"{_APPLIED} beyond_what_was_read",
    ),
    Broken(
        "a lost entry is reported from the first input on",
        pipeline.drills.judge.Judge.miss,
        "start = last.positions.get(name, 0) if last is not None else 0",
        "start = 0",
        f"{_JUDGE} only_a_worker_has",
    ),
    Broken(
        "a confirmed entry that is lost leaves the verdict exact",
        pipeline.drills.judge.Judge.verdict,
        'exactly_once=not kinds & {"loss", "duplicate", "fork"},',
        'exactly_once=not kinds & {"duplicate", "fork"},',
        f"{_JUDGE} only_a_worker_has",
    ),
    Broken(
        "a network drill acts on a worker that reaches Kafka beside its proxy",
        pipeline.drills.kafka_drills._way,
        "if direct:",
        "if False:",
        f"{_REFUSALS} beside_its_proxy",
    ),
    Broken(
        "the only worker may be cut off",
        pipeline.drills.kafka_drills.CutNetwork.check,
        "scene.require_heir(scene.local_victim().worker)",
        "pass",
        f"{_REFUSALS} only_worker",
    ),
    Broken(
        "a fault of the network begins before it is noted",
        pipeline.drills.kafka_drills._NetworkDrill.perform,
        "run.will_undo(step)",
        "pass",
        f"{_STEPS} noted_before",
    ),
    Broken(
        "a fault of the network has no deadline of its own",
        pipeline.drills.kafka_drills._NetworkDrill.perform,
        "longest_s = seconds + run.scene.settings.drills.timeout_s",
        "longest_s = 1e9",
        f"{_STEPS} noted_before",
    ),
    Broken(
        "the number of an earlier fault counts as an effect",
        pipeline.drills.kafka_drills._NetworkDrill._affected,
        "return note.affected if note is not None and note.process.alive and note.fault else 0",
        "return note.affected if note is not None and note.process.alive else 0",
        f"{_STEPS} without_an_effect",
    ),
    Broken(
        "a task may move in a slow network",
        pipeline.drills.kafka_drills.SlowNetwork._after,
        "if moved:",
        "if False:",
        f"{_STEPS} that_moves",
    ),
    Broken(
        "a proxy applies a fault after its deadline",
        pipeline.drills.network_faults.ProxyPlace.fault,
        "return None if found.over() else found",
        "return found",
        f"{_FAULTS} after_its_deadline",
    ),
    Broken(
        "a proxy that has ended is taken for one that runs",
        pipeline.drills.network_faults.ProxyPlace.running,
        "if note is not None and note.process.alive:",
        "if note is not None:",
        f"{_FAULTS} that_has_ended",
    ),
    Broken(
        "a slow network delays every worker behind the proxy",
        pipeline.drills.proxy.NetworkProxy._delay,
        'if fault is None or fault.kind != "slow" or port not in self._struck:',
        'if fault is None or fault.kind != "slow":',
        f"{_FAULTS} another_process",
    ),
    Broken(
        "a cut closes the connections of every worker behind the proxy",
        pipeline.drills.proxy.NetworkProxy.apply,
        "if pipe.port in self._struck:",
        "if True:",
        f"{_FAULTS} another_process",
    ),
    Broken(
        "a connection that begins during a cut is open",
        pipeline.drills.proxy.NetworkProxy._accept,
        'if fault.kind == "cut":',
        "if False:",
        f"{_FAULTS} cut_closes",
    ),
    Broken(
        "a connection that begins in a slow network is fast",
        pipeline.drills.proxy.NetworkProxy._accept,
        "self._struck.add(port)",
        "pass",
        f"{_FAULTS} slow_network",
    ),
    Broken(
        "answers in a slow network are fast",
        pipeline.drills.proxy.NetworkProxy._answers,
        "self._delay(port)",
        "pass",
        f"{_FAULTS} slow_network",
    ),
    Broken(
        "the end of a fault does not end its delays",
        pipeline.drills.proxy.NetworkProxy.apply,
        "self._ended.set()",
        "pass",
        f"{_FAULTS} slow_network",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_drill_is_noticed(copied: Copy, broken: Broken) -> None:
    """Each row must fail its test."""
    copied.assert_noticed(broken)
