"""Members, owners and claims, and what a worker does about each task: every row of the table."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from pipeline.core.crashes import Span, Suspect
from pipeline.core.departures import Departure, HttpAddress, PeerAddress, Revocation
from pipeline.core.membership import (
    AssignmentAction,
    Member,
    Roster,
    TaskRole,
    check_worker_id,
    decide,
    decode_member,
    encode_member,
    process_name,
    ring_parameters,
)
from pipeline.core.names import TaskId
from pipeline.core.notes import (
    Claim,
    DeferredGroup,
    MeasuredSpeed,
    Note,
    Owner,
    Suspected,
    decode_note,
    encode_note,
)
from pipeline.core.recovery_time import RecoverySpeed
from pipeline.errors import ConfigError

TASK = TaskId("app", "main", 0)
TASKS = [TaskId("app", "main", number) for number in range(4)]


def member(worker: str, started_ms: int = 1, parameters: str = "p", weight: int = 1) -> Member:
    return Member(worker, process_name(started_ms, worker.encode()), weight, parameters)


A, B = member("a"), member("b", 2)


def test_a_member_is_told_by_its_client_id() -> None:
    """It is all that Kafka tells one worker about another."""
    made = member("host-1.example_x", 1_700_000_000_000, "0123abcd", 3)
    assert decode_member(encode_member(made)) == made


@pytest.mark.parametrize(
    "client_id",
    ["rdkafka", "pipeline/1/a/1-x/1", "pipeline/2/a/1-x/1/p", "pipeline/1/a/1-x/0/p", "pipeline/1/a/1-x/z/p"],
)
def test_a_stranger_in_the_group_is_no_member(client_id: str) -> None:
    """Anybody may join a Kafka group by its name."""
    assert decode_member(client_id) is None


@pytest.mark.parametrize("worker", ["", "a/b", "a b", "ä", "x" * 129])
def test_a_worker_id_that_would_not_fit_into_a_client_id_is_refused(worker: str) -> None:
    """The id would be split, and be read as another one."""
    with pytest.raises(ConfigError, match="worker id"):
        check_worker_id(worker)


@pytest.mark.parametrize(
    "about",
    [
        Owner(7, "a", "1-x"),
        Owner(8, "a", "1-x", True, "why"),
        Claim("b", "2-y", True),
        Owner(9, "a", "1-x", problem="why", retrying=True),
        Owner(10, "a", "1-x", problem="why", database="db", tasks=2),
    ],
)
def test_notes_come_back_as_they_were(about: Owner | Claim) -> None:
    """They are the workers' only word to each other."""
    key, value = encode_note(TASK, about)
    assert decode_note("app", value) == (TASK, about)
    assert key.decode().endswith("/main/0")


@pytest.mark.parametrize(
    "owner",
    [Owner(9, "a", "1-x", problem="why", retrying=True), Owner(9, "a", "1-x", database="db", tasks=2)],
)
def test_an_earlier_release_reads_notes_with_newer_fields(owner: Owner) -> None:
    """During a rolling upgrade, an unreadable note would hide the owner of the task from the older workers."""
    found = msgspec.json.decode(encode_note(TASK, owner)[1], type=Note)
    assert found.owner == tuple(owner)[:-2]


def test_a_process_that_said_it_leaves_is_no_member_though_it_is_listed() -> None:
    """Kafka answers a leaving member only at the end of the rebalance that is under way."""
    left = Departure("a", A.process)
    key, value = encode_note(None, left)
    assert key == b"left/a"
    found = decode_note("app", value)
    assert found is not None
    assert found[1] == left
    assert Roster([A, B], departed=[A.process]).workers() == {"b": B}
    again = member("a", 9)
    assert Roster([A, again, B], departed=[A.process]).workers() == {"a": again, "b": B}


def test_what_keeps_a_group_waiting_is_told_for_each_worker() -> None:
    """Two workers have two networks; and one that has begun takes back what it said, not what the other did."""
    group = TaskId("app", "rows", -1)
    key, value = encode_note(group, DeferredGroup("a", A.process, "no route"))
    assert decode_note("app", value) == (group, DeferredGroup("a", A.process, "no route"))
    assert key == b"waits/rows/a"
    assert encode_note(group, DeferredGroup("b", B.process, ""))[0] != key


def test_what_is_suspected_is_told_for_each_task() -> None:
    """A release that does not know it finds nothing in the note; an empty one takes the last one back."""
    told = Suspected((("in", "id-1", Suspect(Span(3, 9), 2, proven=True)),))
    for about in (told, Suspected()):
        key, value = encode_note(TASK, about)
        assert decode_note("app", value) == (TASK, about)
        assert key == b"suspected/main/0"
    assert encode_note(TASK, told)[1] == (
        b'[1,"main",0,null,null,null,null,[[["in","id-1",[[3,9],2,true]]]]]'
    )


def test_what_a_worker_has_measured_is_told_once_for_each_worker() -> None:
    """A prediction must survive the end of the process that has measured it."""
    measured = MeasuredSpeed("a", RecoverySpeed(1.5, 0.25, 1e8, 4e7))
    key, value = encode_note(None, measured)
    assert key == b"speed/a"
    found = decode_note("app", value)
    assert found is not None
    assert found[1] == measured


@pytest.mark.parametrize("data", [b"", b"{}", b'[2,"main",0,[7,"a","x"],null]', b'[1,"main",0,null,null]'])
def test_notes_of_another_release_are_skipped(data: bytes) -> None:
    """Notes are hints: a worker that cannot read one continues without it."""
    assert decode_note("app", data) is None


def test_owner_and_claim_of_a_task_are_kept_apart_by_compaction() -> None:
    """One key for both would lose the owner at the first claim."""
    assert encode_note(TASK, Owner(1, "a", "x"))[0] != encode_note(TASK, Claim("a", "x"))[0]


def test_members_say_how_many_tasks_each_of_their_groups_has() -> None:
    """Two that compute different rings must not both act on theirs."""
    assert ring_parameters(TASKS) == ring_parameters(reversed(TASKS)) == "2.64,main=4"
    assert ring_parameters([*TASKS, TaskId("app", "b", 0)]) == "2.64,b=1,main=4"
    assert ring_parameters(TASKS) != ring_parameters(TASKS[:3])


@pytest.mark.parametrize("parameters", ["2.64,main=0", "2.64,main=x", "x,main=4", "main=999999", "2.64,=4"])
def test_a_stranger_with_parameters_that_no_release_writes_is_no_member(parameters: str) -> None:
    """A worker computes the ring from what the members say."""
    assert decode_member(encode_member(member("a", parameters=parameters))) is None


def test_of_several_processes_of_a_worker_the_youngest_counts() -> None:
    """The others were killed and are not missed yet."""
    ghost, again = member("a", 1), member("a", 9)
    assert Roster([again, ghost, B]).workers() == {"a": again, "b": B}


@pytest.mark.parametrize("other", ["1.64,main=4", "2.64,main=5", "0123456789ab"])
def test_who_computes_another_ring_than_the_oldest_member_is_not_on_it(other: str) -> None:
    """Which version is the right one matters less than that all say the same."""
    mine = ring_parameters(TASKS)
    for first, second in ((other, mine), (mine, other)):
        old, new = member("a", 1, first), member("b", 2, second)
        assert Roster([new, old]).ring_members("main") == {"a": old}
        assert Roster([new, old]).others_before(new, "main") == ["a"]
        assert set(Roster([new, old]).assignment(TASKS).values()) == {"a"}


SECOND = [TaskId("app", "second", number) for number in range(4)]
BOTH = ring_parameters([*TASKS, *SECOND])


def test_a_group_is_shared_by_the_workers_that_run_it() -> None:
    """A worker that was started for one group has no code to run for another one."""
    all_groups = member("a", 1, BOTH)
    only_main, only_second = member("b", 2, ring_parameters(TASKS)), member("c", 3, ring_parameters(SECOND))
    found = Roster([all_groups, only_main, only_second]).assignment([*TASKS, *SECOND])
    assert Counter(found[task] for task in TASKS) == {"a": 2, "b": 2}
    assert Counter(found[task] for task in SECOND) == {"a": 2, "c": 2}


def test_a_group_without_workers_is_assigned_to_none() -> None:
    """Its tasks wait; the tasks of other groups do not."""
    found = Roster([member("a", 1, ring_parameters(TASKS))]).assignment([*TASKS, *SECOND])
    assert found == dict.fromkeys(TASKS, "a")


def test_workers_that_know_different_groups_compute_the_same_assignment() -> None:
    """Rounding in one group has an influence on the next: two answers would leave a task without a worker."""
    groups = [[TaskId("app", f"g{number}", task) for task in range(number % 4 + 1)] for number in range(9)]
    everything = [task for group in groups for task in group]
    members = [member("a", 1, ring_parameters(everything)), member("b", 2, ring_parameters(everything[:11]))]
    members += [member("c", 3, ring_parameters(everything[5:]))]
    whole = Roster(members).assignment(everything)
    for group in groups:
        assert Roster(members).assignment(group) == {task: whole[task] for task in group}


def test_many_small_groups_are_spread_over_the_workers() -> None:
    """If each group rounded its shares alone, one worker could get the only task of each."""
    tasks = [TaskId("app", f"g{number}", 0) for number in range(10)]
    everything = ring_parameters(tasks)
    members = [member("a", 1, everything)]
    owners = {task: Owner(1, "a", members[0].process) for task in tasks}
    assert Counter(Roster(members, owners).assignment(tasks).values()) == {"a": 10}
    for worker, weight, loads in (("b", 1, {"a": 5, "b": 5}), ("c", 2, {"a": 2, "b": 3, "c": 5})):
        members.append(member(worker, len(members) + 1, everything, weight))
        found = Counter(Roster(members, owners).assignment(tasks).values())
        assert sorted(found.values()) == sorted(loads.values())
        assert found[worker] == loads[worker]


def test_without_members_nothing_is_assigned() -> None:
    """The members have not been read yet."""
    assert Roster().assignment(TASKS) == {}


@pytest.mark.parametrize(
    ("owner", "running"),
    [
        (None, False),
        (Owner(1, "a", A.process), True),
        (Owner(1, "a", A.process, released=True), False),
        (Owner(1, "a", "0-earlier"), False),
        (Owner(1, "gone", "1-x"), False),
    ],
)
def test_a_task_is_run_by_the_living_process_that_acquired_it(owner: Owner | None, running: bool) -> None:
    """A worker that was started again has to acquire its tasks again."""
    owners = {TASK: owner} if owner is not None else {}
    assert Roster([A, B], owners).is_running(TASK) is running


def test_a_take_over_that_has_begun_is_not_given_to_another() -> None:
    """Who joins in the middle of a long restore would begin it again."""
    owners = {task: Owner(1, "gone", "1-x") for task in TASKS}
    alone = Roster([A, B], owners)
    claims = {task: Claim(worker, "1-x") for task, worker in alone.assignment(TASKS).items()}
    joined = Roster([A, B, member("c", 3)], owners, claims)
    moved = [task for task, worker in joined.assignment(TASKS).items() if worker != claims[task].worker]
    assert len(moved) == 1  # the new one's share


def rows() -> list[tuple[str, Roster, TaskRole, bool, AssignmentAction | None]]:
    """(row, what is seen, where the task is, settled, what `a` does). `a` alone or `b` alone decides the ring."""
    mine, others = Owner(3, "a", A.process), Owner(3, "b", B.process)
    gone = Owner(3, "gone", "1-x")
    both = [A, B]
    stays = {TASK: mine._replace(released=True)}  # the ring leaves it with its last owner
    # Three tasks of b make it give none to a; its own four make it give up one or two.
    to_b = dict.fromkeys(TASKS, others)
    before = Roster([A], {TASK: Owner(3, "a", "0-x")})
    b_has = {TASK: others}
    b_ready, b_not_yet, c_ready = Claim("b", B.process, True), Claim("b", B.process), Claim("c", "1-c", True)
    return [
        ("1 mine before", Roster([A], {TASK: mine}), TaskRole.ABSENT, False, AssignmentAction.CLAIM),
        ("1 mine before, an earlier process", before, TaskRole.ABSENT, False, AssignmentAction.CLAIM),
        ("1 released by me", Roster(both, stays), TaskRole.ABSENT, True, AssignmentAction.CLAIM),
        ("1 nobody's, settled", Roster([A], {TASK: gone}), TaskRole.ABSENT, True, AssignmentAction.CLAIM),
        ("1 nobody's, followed", Roster([A], {TASK: gone}), TaskRole.STANDBY, True, AssignmentAction.CLAIM),
        ("5 nobody's, not settled", Roster([A], {TASK: gone}), TaskRole.ABSENT, False, None),
        ("5 new, not settled", Roster([A]), TaskRole.ABSENT, False, None),
        ("5 on its way", Roster([A], {TASK: gone}), TaskRole.RESTORING, True, None),
        ("5 live", Roster([A], {TASK: mine}), TaskRole.LIVE, True, None),
        ("5 failed here", Roster([A], {TASK: mine}), TaskRole.FAILED, True, None),
        ("5 leaving", Roster([A], {TASK: mine}), TaskRole.LEAVING, True, None),
        ("4 another's, followed", Roster(both, b_has), TaskRole.STANDBY, True, AssignmentAction.DROP_STANDBY),
        ("5 another's", Roster(both, b_has), TaskRole.ABSENT, True, None),
        ("5 another's, nobody ready", Roster(both, b_has), TaskRole.LIVE, True, None),
        ("3 another's, and ready", Roster(both, b_has, {TASK: b_ready}), TaskRole.LIVE, True, AssignmentAction.RELEASE),
        ("5 another's, not ready", Roster(both, b_has, {TASK: b_not_yet}), TaskRole.LIVE, True, None),
        ("5 a third one is ready", Roster(both, b_has, {TASK: c_ready}), TaskRole.LIVE, True, None),
        ("2 to come here, run elsewhere", Roster(both, to_b), TaskRole.ABSENT, True, AssignmentAction.START_STANDBY),
        ("5 the same, not settled", Roster(both, to_b), TaskRole.ABSENT, False, None),
        ("5 the same, followed", Roster(both, to_b), TaskRole.STANDBY, True, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "place", "settled", "action"), [row[1:] for row in rows()], ids=[row[0] for row in rows()]
)
def test_each_row_of_the_table(
    seen: Roster, place: TaskRole, settled: bool, action: AssignmentAction | None
) -> None:
    """The worker does what the table says, and nothing more."""
    tasks = TASKS if len(seen.owners) > 1 else [TASK]
    assigned = seen.assignment(tasks)
    coming = [task for task, worker in assigned.items() if worker == "a"]
    task = coming[0] if len(tasks) > 1 else TASK
    decided = decide(seen, A, assigned, {task: place}, settled=settled)
    assert decided.get(task) == action


def test_an_older_process_has_left_if_a_newer_one_has_left() -> None:
    """A worker that is killed twice in a row has two members in the group, until Kafka misses them."""
    ghost, again = member("a", 1), member("a", 9)
    assert Roster([ghost, again, B], departed=[again.process]).workers() == {"b": B}


@pytest.mark.parametrize(
    ("about", "key"),
    [
        (Departure("a", A.process, "b", 2), b"left/a"),
        (Revocation("a", A.process, 3), b"left/a"),
        (PeerAddress("a", A.process, "10.0.0.1", 7946, watched=True), b"address/a"),
        (HttpAddress("a", A.process, "10.0.0.1", 8080), b"http/a"),
    ],
)
def test_notes_about_a_process_come_back_as_they_were(
    about: Departure | Revocation | PeerAddress | HttpAddress, key: bytes
) -> None:
    """A revocation replaces the departure when the topic is compacted; addresses do not replace each other."""
    found, value = encode_note(None, about)
    assert found == key
    note = decode_note("app", value)
    assert note is not None
    assert note[1] == about


def test_an_earlier_release_reads_a_departure_and_its_revocation() -> None:
    """It knows no numbers: the last note about a worker counts, and an empty process has not left."""
    departure, revocation = (
        msgspec.json.decode(encode_note(None, about)[1], type=Note).departure
        for about in (Departure("a", A.process, "b", 2), Revocation("a", A.process, 3))
    )
    assert departure == ("a", A.process)
    assert revocation == ("a", "")
