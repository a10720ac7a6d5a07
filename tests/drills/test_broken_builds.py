"""Drills that must fail: in a build with a protocol step switched off, the report names the effect and its place."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.drills.report import Effect
from pipeline.runtime.commit.commit_protocol import Publisher
from pipeline.runtime.restore.restore import _Restore
from pipeline.transactions.engine import TransactionEngine
from pipeline.transactions.proof import prove_read
from tests.conftest import KafkaUnderTest
from tests.support.breaking import Broken, place_of, replaced
from tests.support.drills.live import LiveApp
from tests.support.pages import ROOT

pytestmark = [pytest.mark.kafka, pytest.mark.kills, pytest.mark.timeout(600)]

# A break takes effect while this file is in the working directory of the workers.
SWITCH = "broken"
_IS_ON = f'__import__("os").path.exists("{SWITCH}")'

STALE_READS = (
    Broken(
        "a restore does not see the last entries",
        _Restore._read,
        "end = settled_end(task, environment, self._settings, publisher.fence, publisher.known_end)",
        "end = settled_end(task, environment, self._settings, publisher.fence, publisher.known_end)"
        f" - 8 * {_IS_ON}",
        "",
    ),
    Broken("and nothing proves the read", prove_read, "if unseen:", "if unseen and False:", ""),
)
# Its end counts as quick: a slow end is followed by a fence, after which the worker sees that the entry is missing.
LOST_COMMITS = (
    Broken(
        "one aborted transaction is taken for committed",
        TransactionEngine.commit,
        "took_s = self._end(self._client().commit, timeout_s)",
        f'import os; lost = {_IS_ON} and not os.unlink("{SWITCH}"); '
        "took_s = self._end(self._client().abort if lost else self._client().commit, timeout_s) * (not lost)",
        "",
    ),
)

UNAPPLIED_WRITES = (
    Broken(
        "table writes are not applied to the local state",
        Publisher._apply,
        "self._store.apply(commit.delta, encode_position(position))",
        f"self._store.apply({{}} if {_IS_ON} else commit.delta, encode_position(position))",
        "",
    ),
)

Build = Callable[[tuple[Broken, ...]], LiveApp]


@pytest.fixture
def build(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Build]:
    """Starts the live app with a copy of the package in which rules are broken."""
    apps = []

    def start(rules: tuple[Broken, ...]) -> LiveApp:
        copy = tmp_path / "copy"
        for folder in ("pipeline", "tests"):
            shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for rule in rules:
            file, first, last = place_of(rule.where)
            source = copy / "pipeline" / file
            source.write_text(
                replaced(source.read_text(encoding="utf-8"), first, last, rule), encoding="utf-8"
            )
        name = unique_name[-40:].strip("-")
        apps.append(LiveApp(kafka.bootstrap_servers, name, tmp_path, package=copy, timeout_s=20))
        return apps[-1]

    yield start
    for app in apps:
        app.close()


def _switch(app: LiveApp) -> Path:
    assert app.fleet.package is not None
    return app.fleet.package / SWITCH


def _effects(app: LiveApp, kind: str) -> list[Effect]:
    report = app.report()
    assert report.verdict == "deviated"
    assert not report.recovery_point.exactly_once
    found = [each for each in report.recovery_point.effects if each.kind == kind]
    assert found, report.deviations
    assert any(text.startswith(f"{kind}: task {found[0].task}") for text in report.deviations)
    return found


@pytest.mark.unverified
def test_a_takeover_that_misses_entries_is_reported_as_fork_and_duplicates(build: Build) -> None:
    """The journal of such a build is damaged: the drill must say so, and where, instead of showing a recovery."""
    app = build(STALE_READS)
    app.wait_for(lambda: len(app.bench.sent) > 400)
    _switch(app).touch()
    said = app.run("run", "kill-worker", "--worker", "a", "--yes", code=1)
    for effect in _effects(app, "duplicate"):
        assert effect.topic == f"{app.name}-amounts"
        assert effect.offset is not None
        assert effect.offset > 0
        assert f"offset {effect.offset}, journal offset {effect.journal_offset}" in said
    assert {each.task for each in _effects(app, "fork")} <= set(app.report().blast_radius.touched)


@pytest.mark.unverified
def test_a_commit_that_did_not_happen_is_reported_as_loss(build: Build) -> None:
    """The first lost input offset is where the people who repair the data must begin."""
    app = build(LOST_COMMITS)
    app.wait_for(lambda: any(app.store.glob("*/*/main/*/manifests/*")))
    driller = app.start("run", "store-down", "--seconds", "8", "--yes")
    app.wait_for(lambda: app.store.is_file() or driller.poll() is not None)
    _switch(app).touch()
    said, _ = driller.communicate(timeout=120)
    assert driller.returncode == 1, said
    assert not _switch(app).exists()
    (effect,) = _effects(app, "loss")
    assert effect.topic == f"{app.name}-amounts"
    assert effect.offset is not None
    assert f"offset {effect.offset}" in said


@pytest.mark.unverified
def test_a_row_that_differs_from_the_replay_is_named(build: Build) -> None:
    """A state that journal and checkpoint do not explain would be lost with its disk."""
    app = build(UNAPPLIED_WRITES)
    app.wait_for(lambda: any(app.store.glob("*/*/main/*/manifests/*")))
    app.run("run", "replay-from-checkpoint", "--yes")
    assert app.report().verdict == "held"
    _switch(app).touch()
    said = app.run("run", "replay-from-checkpoint", "--yes", code=1)
    report = app.report()
    assert report.recovery_point.states_equal < report.recovery_point.states_compared
    (effect, *_) = [each for each in report.recovery_point.effects if each.kind == "state"]
    assert effect.text.startswith("table totals, key key-")
    assert effect.topic == f"{app.name}-amounts"
    assert effect.offset is not None
    assert f"wrote it last, from {effect.topic} offsets {effect.offset} to" in effect.text
    assert effect.text in said
