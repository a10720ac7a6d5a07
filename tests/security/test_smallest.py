"""`pipeline acls` prints no permission that is not needed: each one is left out, and a command names it (test-acls)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

import msgspec
import pytest

from pipeline.core.permissions import Grant, Operation, ResourceKind, Role
from pipeline.core.records import partition_of
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from tests.security.test_acls import BAD, GOOD, Missing, folded, without
from tests.support.kafka.producing import ordered_producer
from tests.support.secure.kafka import SecureKafka
from tests.support.secure.site import APP, PARTITIONS, SecureSite, checkpoints_in
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.acls, pytest.mark.timeout(900)]

AT_ONCE = 4
WORKER_S = 150.0
_numbers = count()
Commands = Callable[[int, Missing | None], Sequence[Sequence[str]]]


def each(grants: Sequence[Grant]) -> list[Missing]:
    """One for each permission. Creations come first: later, the topic exists."""
    found = [Missing(operation, g.kind, g.name) for g in grants for operation in g.operations]
    return sorted(found, key=lambda missing: missing.operation is not Operation.CREATE)


def failure(
    site: SecureSite,
    grants: Sequence[Grant],
    left_out: Missing | None,
    commands: Sequence[Sequence[str]],
    variables: Mapping[str, str],
) -> str:
    """What is wrong with the errors of these commands without a permission; empty if one of them names it.

    Without `left_out`, what is wrong with commands that have all permissions.
    """
    user = site.kafka.user(f"{site.name}-{next(_numbers)}")
    site.kafka.grant_only(user, grants if left_out is None else without(list(grants), left_out))
    outputs = []
    for command in commands:
        done = site.run(*command, user=user, variables=variables)
        text = f"{' '.join(command)}: exit code {done.returncode}: {done.stdout[-500:]}{done.stderr}"
        if "Traceback" in done.stderr or "rdkafka" in done.stderr:
            return text
        if left_out is not None and done.returncode == 1 and left_out.is_named_in(done.stdout + done.stderr):
            return ""
        if left_out is None and "Kafka denies" in done.stderr:
            return text
        outputs.append(text)
    return "" if left_out is None else f"{left_out} is not named: " + "\n".join(outputs)


def check(
    site: SecureSite,
    grants: Sequence[Grant],
    commands: Commands,
    variables: Mapping[str, str],
    *,
    at_once: int = AT_ONCE,
) -> None:
    """Leave out each permission, then none. `commands`: those of the case with this number.

    Cases without a creation run alone, so that no other case creates the topic first.
    """

    def case(number: int, left_out: Missing | None) -> str:
        return failure(site, grants, left_out, commands(number, left_out), variables)

    cases = list(enumerate(each(grants)))
    creations = sum(left_out.operation is Operation.CREATE for _, left_out in cases)
    found = [case(*item) for item in cases[:creations]]
    with ThreadPoolExecutor(at_once) as threads:
        found += threads.map(lambda item: case(*item), cases[creations:])
    found.append(case(len(cases), None))
    _require_none(found)


def _require_none(found: Sequence[str]) -> None:
    wrong = [each for each in found if each]
    if wrong:
        pytest.fail(f"{len(wrong)} of {len(found)} cases: " + "\n\n".join(wrong), pytrace=False)


def produce(site: SecureSite, rows: Sequence[tuple[str, int]]) -> None:
    """Write flights as the super user."""
    producer = ordered_producer(site.kafka.plain)
    for carrier, delay in rows:
        value = msgspec.json.encode({"carrier": carrier, "dep_delay": delay})
        key = carrier.encode()
        producer.produce(f"{site.name}-flights", value, key, partition_of(key, PARTITIONS))
    assert producer.flush(30) == 0


class LivedIn:
    """A site whose worker has run: totals, checkpoints, rows, dead letters, one replay that failed again, one waiting.

    `letters`: the ids of open dead letters.
    """

    def __init__(self, kafka: SecureKafka, directory: Path, letters: int = 4) -> None:
        self.site = site = SecureSite(kafka, f"a{next(_numbers)}-{time.time_ns() % 10**9}", directory)
        self.store = directory / "checkpoints"
        self.store.mkdir()
        self.variables = checkpoints_in(self.store)
        produce(site, [*GOOD, *[("AA", BAD)] * letters])
        self._as_super_user = {**self.variables, "PIPELINE_KAFKA": kafka.plain}
        worker = site.worker(None, variables=self._as_super_user)
        wait_until(
            lambda: site.totals() == folded(GOOD) and len(self._open()) == letters,
            site.log.read_text,
            WORKER_S,
        )
        first, second, *self.letters = self._open()
        self._letters("replay", first)
        wait_until(lambda: len(self._open()) == letters, site.log.read_text, WORKER_S)
        wait_until(lambda: len(site.rows()) == 3, site.log.read_text, WORKER_S)
        assert site.stop(worker) == 0, site.log.read_text()
        self._letters("replay", second)

    def printed(self, role: Role) -> list[Grant]:
        return self.site.printed(role, self.store)

    def _letters(self, *words: str) -> str:
        command, *more = words
        done = self.site.run("deadletters", command, APP, *more, variables=self._as_super_user)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _open(self) -> list[str]:
        found = [msgspec.json.decode(line) for line in self._letters("list", "--open", "--json").splitlines()]
        return [letter["id"] for letter in found]


@pytest.fixture(scope="module")
def read_only(secure: SecureKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivedIn]:
    """Shared by the tests of roles that change nothing."""
    found = LivedIn(secure, tmp_path_factory.mktemp("lived-in"))
    produce(found.site, GOOD[:1])  # a status reads the records of a small lag, to tell them from markers
    yield found
    found.site.close()


@pytest.fixture
def lived_in(secure: SecureKafka, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LivedIn]:
    """One for this test."""
    found = LivedIn(secure, tmp_path, getattr(request, "param", 4))
    yield found
    found.site.close()


def test_a_status_needs_each_of_its_acls(read_only: LivedIn) -> None:
    """A dashboard's user must not be able to do more than read positions."""
    check(read_only.site, read_only.printed(Role.STATUS), lambda *_: [("status", read_only.site.name)], {})


def test_an_inspection_needs_each_of_its_acls(read_only: LivedIn) -> None:
    """Support staff read records and past states; each topic they can read is personal data."""
    name = read_only.site.name
    commands = [
        *[("consume", topic) for topic in (f"{name}-flights", f"{name}-totals", f"{name}.main.dead-letters")],
        ("table", "show", "totals", "--app", APP, "--at", "2100-01-01T00:00:00Z"),
        ("table", "history", "counting.counts", "AA", "--app", APP),
        ("debug", APP, f"{name}-flights/0/0", "--yes"),
        ("debug", APP, f"{name}.main.replays/{partition_of(b'AA', PARTITIONS)}/0", "--yes"),
        ("checkpoints", "list", name),
        ("topics", "show", f"{name}-flights"),
    ]
    check(read_only.site, read_only.printed(Role.INSPECT), lambda *_: commands, read_only.variables)


def test_a_load_needs_each_of_its_acls(site: SecureSite) -> None:
    """Loaders run on machines outside of the cluster, and have the most users."""
    file = str(site.flights(GOOD))
    load = ("produce", f"{site.name}-flights", file, "--key", "carrier", "--name")
    printed = site.printed(Role.LOAD)
    loads = [missing for missing in each(printed) if missing.name == "pipeline.loads"]
    if _exists(site, "pipeline.loads"):  # another test of this broker has loaded, so it need not be created
        printed = without(printed, loads[0])
    check(site, printed, lambda number, _: [(*load, f"load-{number}"), ("loads", "list")], {})


def _exists(site: SecureSite, topic: str) -> bool:
    done = site.run("topics", "show", topic, variables={"PIPELINE_KAFKA": site.kafka.plain})
    return done.returncode == 0


@pytest.mark.parametrize("lived_in", [40], indirect=True)
def test_a_replay_needs_each_of_its_acls(lived_in: LivedIn) -> None:
    """A replay writes to five topics; a user with one more could forge records of the pipeline."""

    def commands(number: int, _: Missing | None) -> Sequence[Sequence[str]]:
        letter = lived_in.letters[number]
        return [("deadletters", "list", APP), ("deadletters", "replay", APP, letter)]

    check(lived_in.site, _created(lived_in.printed(Role.REPLAY)), commands, {}, at_once=1)


def _created(grants: Sequence[Grant]) -> list[Grant]:
    """Without CREATE: the topics exist, and `test_a_command_names_the_acl_that_it_lacks` leaves it out before."""
    return [
        grant._replace(operations=tuple(each for each in grant.operations if each is not Operation.CREATE))
        for grant in grants
    ]


def test_a_purge_needs_each_of_its_acls(lived_in: LivedIn) -> None:
    """A purge deletes records, so its user is the most dangerous one after that of the worker."""
    purge = ("deadletters", "purge", APP, "--yes")
    check(lived_in.site, _created(lived_in.printed(Role.PURGE)), lambda *_: [purge], {}, at_once=1)


def test_a_reset_needs_each_of_its_acls(lived_in: LivedIn) -> None:
    """A reset that fails halfway would leave groups at different positions."""
    groups = ("counting", "database", "main")  # the waiting replay of the last one is dropped by its reset
    commands = [("reset", APP, "--group", group, "--yes") for group in groups]
    check(lived_in.site, lived_in.printed(Role.RESET), lambda *_: commands, {}, at_once=1)


def test_forgetting_a_group_needs_each_of_its_acls(lived_in: LivedIn) -> None:
    """It deletes journals, and must not leave half of a group behind."""
    name = lived_in.site.name
    commands = [("journal", "forget", name, "--group", group, "--yes") for group in ("counting", "main")]
    # Describe on inputs is needed only after a crash, to find a consumer group whose journal is deleted already. The
    # groups of sinks are reset, not forgotten.
    needed = [
        grant
        for grant in lived_in.printed(Role.FORGET)
        if Operation.DESCRIBE not in grant.operations or grant.name.endswith(".workers")
    ]
    needed = [grant for grant in needed if not grant.name.endswith(".database")]
    # Each case finds what the ones before it have left: the journal of the first group goes first, then the topic of
    # the workers, then a consumer group.
    groups = (f"{name}.counting", f"{name}.main")
    order = [f"{groups[0]}.journal", f"pipeline.workers.{name}", groups[0], f"{groups[1]}.journal", groups[1]]
    needed.sort(key=lambda grant: order.index(grant.name) if grant.name in order else -1)
    check(lived_in.site, needed, lambda *_: commands, {}, at_once=1)


def test_topics_as_code_need_each_of_their_acls(site: SecureSite) -> None:
    """A pipeline of a CI server applies declarations, with a user of its own."""
    directory = _made(site.directory / "topics")
    names = [f"{site.name}-{topic}" for topic in ("flights", "totals")]

    def commands(number: int, left_out: Missing | None) -> Sequence[Sequence[str]]:
        with closing(KafkaCluster(site.super_user)) as cluster:
            if left_out is not None and left_out.operation is Operation.CREATE:
                cluster.delete([left_out.name])
            elif missing := set(names) - cluster.describe(names).keys():
                cluster.create([TopicSpec(name, PARTITIONS) for name in missing])
        for name in names:
            (directory / f"{name}.yaml").write_text(
                f"name: {name}\npartitions: {PARTITIONS + 1 + number}\nowner: me\nkey: text\nvalue: JSON\n"
                f"config:\n  retention.ms: {86_400_000 + number}\n"
            )
        return [
            ("topics", "plan"),
            ("topics", "apply", *(word for name in names for word in ("--allow", name))),
        ]

    printed = [grant for grant in site.printed(Role.TOPICS) if grant.name in names]
    check(site, printed, commands, {}, at_once=1)


def test_a_worker_needs_each_of_its_acls(secure: SecureKafka, tmp_path: Path) -> None:
    """The user of workers is on every machine; what it may do without need, an intruder may do, too."""
    first = SecureSite(secure, f"w-{time.time_ns() % 10**9}", _made(tmp_path / "first"))
    printed = each(first.printed(Role.WORKER, _made(first.directory / "checkpoints")))
    numbers = [
        n for n, missing in enumerate(printed) if missing.name != f"pipeline.letter-counts.{first.name}"
    ]
    assert len(numbers) == len(printed) - 2  # a worker reads the counts for its metrics, and runs without

    def case(number: int) -> str:
        site = SecureSite(secure, f"w{number}-{time.time_ns() % 10**9}", _made(tmp_path / str(number)))
        try:
            return _worker_without(site, number)
        finally:
            site.close()

    with ThreadPoolExecutor(AT_ONCE) as threads:
        _require_none(list(threads.map(case, numbers)))


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _worker_without(site: SecureSite, number: int) -> str:
    """Run a new app with flights, a bad record and checkpoints, until its worker names the permission or has ended."""
    store = _made(site.directory / "checkpoints")
    variables = checkpoints_in(store)
    grants = site.printed(Role.WORKER, store)
    left_out = each(grants)[number]
    user = site.user(Role.WORKER, grants)
    produce(site, [*GOOD, ("AA", BAD)])
    if left_out == Missing(Operation.DESCRIBE_CONFIGS, ResourceKind.TOPIC, f"pipeline.workers.{site.name}"):
        worker = site.worker(
            user, variables=variables
        )  # the first worker creates the topic, later ones describe it
        wait_until(lambda: "task_live" in site.log.read_text(), site.log.read_text, WORKER_S)
        site.stop(worker)
    site.kafka.grant_only(user, without(grants, left_out))
    worker = site.worker(user, variables=variables)

    def named() -> bool:
        if left_out.operation is Operation.DELETE:
            produce(site, GOOD[:1])  # a journal is truncated only after some checkpoints
        return left_out.is_named_in(site.log.read_text()) or not worker.is_alive()

    with suppress(AssertionError):
        wait_until(named, lambda: "", WORKER_S)
    site.stop(worker)
    log = site.log.read_text()
    if left_out.is_named_in(log) and "Traceback" not in log:
        return ""
    return f"{left_out} is not named:\n{log[-2000:]}"
