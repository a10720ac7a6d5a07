"""Broken on purpose: who runs which task, and how it is given up."""

from __future__ import annotations

import pytest

import pipeline.core.departures
import pipeline.core.membership
import pipeline.core.peer_watch
import pipeline.peers.listener
import pipeline.peers.sockets
import pipeline.peers.watcher
import pipeline.processes.supervisor
import pipeline.rocksdb.snapshots
import pipeline.runtime.assignment.cleanup
import pipeline.runtime.assignment.peers
import pipeline.runtime.assignment.roster
import pipeline.runtime.task.task
import pipeline.runtime.task_lifecycle
from tests.support.breaking import Broken, Copy, name_of

ROWS = [
    Broken(
        "a worker ends before it has claimed the tasks that no worker runs",
        pipeline.runtime.task_lifecycle.TaskLifecycle.finished,
        "            or not self.ownership.settled\n",
        "",
        "tests/runtime/test_worker.py claimed_its_other",
    ),
    Broken(
        "a handler that hangs at once leaves its task without a note",
        pipeline.runtime.task_lifecycle.TaskLifecycle.turn,
        "        return self._end_deferred_starts() | self._start_restored() | self._carry_out_assignment()\n",
        "        return self._end_deferred_starts() | self._carry_out_assignment() | self._start_restored()\n",
        "tests/runtime/test_watchdog.py first_record_hangs",
    ),
    Broken(
        "states are removed on the word of a note",
        pipeline.runtime.assignment.cleanup.StateCleanup._put_away,
        "            if not agrees or task in here",
        "            if task in here",
        "tests/runtime/assignment/test_cleanup.py note_alone",
    ),
    Broken(
        "a state that is restored again meanwhile is put away",
        pipeline.runtime.assignment.cleanup.StateCleanup._put_away,
        "            if not agrees or task in here or not self._is_anothers(task, roster):",
        "            if not agrees:",
        "tests/runtime/assignment/test_cleanup.py came_back",
    ),
    Broken(
        "states are removed where they stand",
        pipeline.rocksdb.snapshots.put_away,
        "        state.rename(target)\n",
        "        target = state\n",
        "tests/contracts/test_store_contract.py killed_while",
    ),
    Broken(
        "the ring does not look at who owns what",
        pipeline.core.membership.Roster.assignment,
        "self._holders(own, weights), owed)",
        "None, owed)",
        "tests/runtime/assignment/test_fleet.py others_never_stop",
    ),
    Broken(
        "workers that start take free tasks before they know each other",
        pipeline.core.membership.decide,
        "if mine or (settled and not roster.is_running(task)):",
        "if mine or not roster.is_running(task):",
        "tests/runtime/assignment/test_fleet.py without_a_fight",
    ),
    Broken(
        "a worker claims what another one runs",
        pipeline.core.membership.decide,
        "if mine or (settled and not roster.is_running(task)):",
        "if mine or settled:",
        "tests/runtime/assignment/test_fleet.py never_stop",
    ),
    Broken(
        "a late note turns owners back",
        pipeline.runtime.assignment.roster.RosterWatch._merge,
        "if about.replaces(self._owners.get(task)):",
        "if True:",
        "tests/runtime/assignment/test_roster.py later_entry",
    ),
    Broken(
        "the ghost of a restarted worker counts",
        pipeline.core.membership.Roster._workers,
        "for member in sorted(self.members, key=lambda member: member.age):",
        "for member in sorted(self.members, key=lambda member: member.age, reverse=True):",
        "tests/runtime/assignment/test_fleet.py before_it_was_missed",
    ),
    Broken(
        "who has said that it leaves is waited for",
        pipeline.core.membership.Roster._workers,
        "            if member.process not in self.departed:\n                found[",
        "            if True:\n                found[",
        "tests/runtime/assignment/test_fleet.py is_stopped",
    ),
    Broken(
        "two versions with different tasks share one ring",
        pipeline.core.membership.Roster.ring_members,
        "if member.ring_of(group) == ring}",
        "if ring}",
        "tests/runtime/assignment/test_fleet.py of_another_version",
    ),
    Broken(
        "a worker gets tasks of a group that it does not run",
        pipeline.core.membership.Member.ring_of,
        "return None if count is None else",
        "return",
        "tests/runtime/assignment/test_groups_of_workers.py",
    ),
    Broken(
        "a worker computes only the rings of its own groups",
        pipeline.core.membership.Roster.assignment,
        "sorted({*wanted, *(name for member in self.members for name in member.groups)})",
        "sorted(wanted)",
        "tests/core/test_membership.py know_different_groups",
    ),
    Broken(
        "each group rounds the shares of its workers alone",
        pipeline.core.membership.Roster.assignment,
        "self._holders(own, weights), owed)",
        "self._holders(own, weights))",
        "tests/core/test_membership.py small_groups_are_spread",
    ),
    Broken(
        "a fenced worker takes the task back without asking who has it",
        pipeline.runtime.task_lifecycle.TaskLifecycle._handle_found_owners,
        "            self._reactions.settled(task)\n"
        '            self._environment.log.warning(\n                "task_taken_over"',
        "            self._begin_restore(self._run_of(task), task)\n"
        "            continue\n"
        '            self._environment.log.warning(\n                "task_taken_over"',
        "tests/runtime/assignment/test_fleet.py wakes_up",
    ),
    Broken(
        "what waits in a task that is given up is processed and lost",
        pipeline.runtime.task.task.Task.offer,
        "        if self._leaving or (self.stopped and",
        "        if (self.stopped and",
        "tests/runtime/task/test_task.py given_up",
    ),
    Broken(
        "a task is released before what is open is committed",
        pipeline.runtime.task.task.Task.advance,
        "        seal = seal or self._leaving  # so that nothing is open when the release entry is committed\n",
        "",
        "tests/runtime/task/test_task.py given_up",
    ),
    Broken(
        "a connection that ends is a death",
        pipeline.core.peer_watch.PeerView.after,
        "            return PeerView(PeerState.DOUBTED, now_s, orderly=signal is PeerSignal.ENDED)\n",
        "            return PeerView(PeerState.DEAD)\n",
        "tests/peers/test_sockets.py made_again",
    ),
    Broken(
        "an address that was never met is judged",
        pipeline.core.peer_watch.PeerView.after,
        "        if self.state is PeerState.UNMET:\n            return self\n",
        "",
        "tests/core/test_peer_watch.py each_signal",
    ),
    Broken(
        "an address that is unreachable after a reset is a death",
        pipeline.core.peer_watch.PeerView._after_doubt,
        "gone = self.orderly and ",
        "gone = ",
        "tests/core/test_peer_watch.py each_signal",
    ),
    Broken(
        "a late departure counts after its revocation",
        pipeline.core.departures.Departures.depart,
        "        if departure.number >= self.number(departure.worker, departure.process):\n",
        "        if departure.process:\n",
        "tests/core/test_departures.py departure_counts",
    ),
    Broken(
        "a living process does not revoke its departure",
        pipeline.runtime.assignment.peers.WatchedPeers.merge,
        "                self._revoke(about)\n",
        "                pass\n",
        "tests/runtime/assignment/test_peers.py revokes_this",
    ),
    Broken(
        "a process that has revoked its departure is watched at once",
        pipeline.runtime.assignment.peers.WatchedPeers.merge,
        "            self._immune_until_s[about.process] = now_s + immunity_s(about.number)\n",
        "",
        "tests/runtime/assignment/test_peers.py immune_for_a_time",
    ),
    Broken(
        "a death is not noted",
        pipeline.runtime.assignment.peers.WatchedPeers._note_death,
        "        self._environment.executor.submit(announce)\n",
        "",
        "tests/runtime/assignment/test_peers.py taken_over_at_once",
    ),
    Broken(
        "both watchers of a worker may be on its host",
        pipeline.core.departures._watchers,
        "            return [*nearest[:-1], other]\n",
        "            return nearest\n",
        "tests/core/test_departures.py another_host",
    ),
    Broken(
        "an older process of a worker lives on when a newer one has left",
        pipeline.core.membership.Roster._workers,
        "                found.pop(member.worker, None)",
        "                pass",
        "tests/core/test_membership.py older_process_has_left",
    ),
    Broken(
        "a listener answers what it is sent",
        pipeline.peers.listener.Listener._ended,
        "lambda _now_s: self._drop(connection)",
        "lambda _now_s: None if connection.recv(1) else self._drop(connection)",
        "tests/peers/test_sockets.py sends_anything",
    ),
    Broken(
        "a forked child keeps the connections of its parent",
        pipeline.peers.sockets.PeerSockets._forked,
        "            each.close()\n",
        "            pass\n",
        "tests/peers/test_sockets.py forked_child",
    ),
    Broken(
        "another process on the port is taken for the same one",
        pipeline.peers.watcher.WatchedPeer._readable,
        "        if process == self.target.process:\n",
        "        if process is not None:\n",
        "tests/peers/test_sockets.py another_process",
    ),
    Broken(
        "a supervisor does not note the end of its process",
        pipeline.processes.supervisor.Supervisor._ended,
        "            self._note(place.departure)",
        "            pass",
        "tests/processes/test_supervisor.py is_noted",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)
