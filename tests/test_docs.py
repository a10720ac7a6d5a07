"""The documents against the code: commands, settings, programs, runbooks and links that they name exist."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import CapturingLogger
from typer.main import get_command

from benchmarks.__main__ import NAMES as BENCHMARKS
from pipeline.app import declared_app
from pipeline.cli.main import assemble
from pipeline.config import (
    OWNED_PROPERTIES,
    DrillSettings,
    HttpSettings,
    OtelSettings,
    ProducerSettings,
    WorkerSettings,
    load_settings,
)
from pipeline.drills.catalog import DRILLS
from pipeline.errors import ConfigError
from pipeline.http import server
from pipeline.http.documents import READ_WAIT_S, PageApp, StatusClients
from pipeline.http.families import FAMILIES
from pipeline.http.port import WorkerPort
from pipeline.http.worker_metrics import ENDS_WAIT_S, WorkerMetrics
from pipeline.testing import ManualClock, TestDriver, TestProducer
from tests.support.pages import ROOT
from tests.support.pages import blocks as _blocks
from tests.support.pages import import_program as _import
from tools.site.log_events import log_events

DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "runbooks").glob("*.md"),
        ROOT / "examples" / "README.md",
    ],
)
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
# Commands that the documents say are not there. One that comes to be must leave this set, and those sentences.
NOT_THERE: frozenset[str] = frozenset()
SHELL_OPERATORS = frozenset({"|", "||", "&&", "&", ";", ">", ">>", "2>", "<"})

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def _prose(document: Path) -> str:
    text = document.read_text(encoding="utf-8")
    return re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.DOTALL | re.MULTILINE)


def _typed_commands(document: Path) -> Iterator[list[str]]:
    """The arguments of every `pipeline` that a reader would paste."""
    for block in _blocks(document, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if not line.startswith("pipeline "):
                continue
            words = shlex.split(line, comments=True)
            end = next((at for at, word in enumerate(words) if word in SHELL_OPERATORS), len(words))
            yield words[1:end]


def _mentioned_commands(document: Path) -> Iterator[list[str]]:
    """The words after `pipeline` in running text, where arguments may be left out."""
    for span in re.findall(r"`pipeline ([^`]+)`", _prose(document)):
        yield re.sub(r"\s+", " ", span).split()


def _resolve(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, and what is left for it. Raises KeyError."""
    command: Any = get_command(assemble())
    rest = list(words)
    while rest and hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    return command, rest


def _table(document: Path, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading or after a line that contains it."""
    text = document.read_text(encoding="utf-8").split(heading, 1)[1]
    lines = text[text.index("\n|") + 1 :].splitlines()
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows[2:]


def _tables(document: Path, heading: str) -> list[list[str]]:
    """The cells of all tables in the section of a second-level heading."""
    section = document.read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = []
    for table in re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE):
        rows += [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]
    return rows


def _unquoted(cell: str) -> str:
    return cell.strip().strip("`")


def test_every_runbook_that_an_error_names_exists() -> None:
    """An operator who is sent to a page at night must find it."""
    named = {
        name
        for source in (ROOT / "pipeline").rglob("*.py")
        for name in re.findall(r"runbooks/[a-z-]+\.md", source.read_text(encoding="utf-8"))
    }
    assert named
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


@each_document
def test_pasted_commands_are_accepted_by_the_parser(document: Path) -> None:
    """A command line in a document that the command refuses costs the reader's trust."""
    for words in _typed_commands(document):
        command, rest = _resolve(words)
        assert not hasattr(command, "commands"), words
        command.make_context(words[0], rest)


@each_document
def test_mentioned_commands_and_options_exist(document: Path) -> None:
    """Running text must not promise a command or an option that is not there."""
    for words in _mentioned_commands(document):
        if words[0].strip(",") in NOT_THERE:
            continue
        names = [word for word in words if re.fullmatch(r"[a-z]+", word)]
        try:
            command, _ = _resolve(names)
        except KeyError:
            pytest.fail(f"there is no command: pipeline {' '.join(words)}")
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, words


def test_what_is_said_to_be_missing_is_missing() -> None:
    """A list of gaps that have been filled hides what the product can do."""
    root: Any = get_command(assemble())
    assert not NOT_THERE & set(root.commands)


@each_document
def test_make_targets_exist(document: Path) -> None:
    """A target that does not exist is the first thing that a contributor would meet."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        found
        for block in _blocks(document, "sh")
        for found in re.findall(r"^make ([a-z-]+)", block, re.MULTILINE)
    }
    named |= set(re.findall(r"`make ([a-z-]+)", _prose(document)))
    assert named <= targets


@each_document
def test_benchmarks_that_are_named_exist(document: Path) -> None:
    """A number in a document is worth what its command is worth."""
    named = set(re.findall(r"`make bench BENCH=(\w+)`", _prose(document)))
    assert named <= set(BENCHMARKS)


@pytest.mark.parametrize(("name", "most"), [("README.md", 200), ("ARCHITECTURE.md", 250)])
def test_the_first_documents_stay_short(name: str, most: int) -> None:
    """These two are read from beginning to end; details belong to pages of docs/."""
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= most


@each_document
def test_links_between_documents_resolve(document: Path) -> None:
    """Files and headings move; links must move with them."""
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(document)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (document.parent / name).resolve() if name else document
        assert linked.exists(), target
        assert linked.is_relative_to(ROOT), target
        if anchor:
            assert anchor in _anchors(linked), target


def test_each_decision_has_a_number_of_its_own() -> None:
    """Pages refer to decisions by number."""
    numbers = Counter(decision.name[:4] for decision in DECISIONS)
    assert [number for number, count in numbers.items() if count > 1] == []


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda path: path.stem)
def test_decisions_follow_one_template(decision: Path) -> None:
    """A reader looks for the alternatives of any decision at the same place."""
    text = decision.read_text(encoding="utf-8")
    assert text.startswith(f"# {decision.name[:4]}: ")
    assert "\n**Status:** accepted" in text
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert [name for name in headings if name != "Alternatives"] == ["Context", "Decision", "Consequences"]
    assert "Alternatives" not in headings or headings.index("Alternatives") == 2


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _prose(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_program_of_the_readme_does_what_the_readme_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what everybody begins with, and its test is how everybody learns to test."""
    program, its_test = _blocks(ROOT / "README.md", "python")
    (tmp_path / "delays.py").write_text(program, encoding="utf-8")
    (tmp_path / "readme_test.py").write_text(its_test, encoding="utf-8")
    module = _import("delays", tmp_path, monkeypatch)
    driver = TestDriver(module.app, partitions=4)
    for carrier, delay in [("AA", 12), ("UA", -3), ("AA", None), ("B6", 47), ("AA", 5)]:
        driver.send(module.flights, carrier, module.Flight(carrier, delay))
    driver.send_raw(module.flights, b"AA", b'{"carrier": "AA", "dep_delay": "late"}')
    driver.run()
    assert driver.table(module.totals) == {
        "AA": module.Delay(3, 17),
        "B6": module.Delay(1, 47),
        "UA": module.Delay(1, -3),
    }
    assert len(driver.outputs(module.delays)) == 5
    assert len(driver.dead_letters()) == 1
    tests = _import("readme_test", tmp_path, monkeypatch)
    tests.test_a_crash_after_the_commit_changes_nothing()


def test_the_service_that_produces_does_what_its_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what people copy into their web service, with its test."""
    service, its_test, *_ = _blocks(ROOT / "docs" / "how-to" / "producing.md", "python")
    (tmp_path / "shop.py").write_text(service, encoding="utf-8")
    (tmp_path / "shop_test.py").write_text(its_test, encoding="utf-8")
    shop = _import("shop", tmp_path, monkeypatch)
    _import("shop_test", tmp_path, monkeypatch).test_an_order_is_sent_under_its_own_id()
    with TestProducer(shop.orders) as producer:
        assert asyncio.run(shop.accept_async(producer, "order-8", "ann", 500)) == 0
        assert producer.sent(shop.orders)[0].id == b"order-8"


def test_the_program_that_widens_a_topic_keeps_every_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is run when something has gone wrong already, on all of a topic."""
    _, program, _ = _blocks(ROOT / "runbooks" / "partitions-changed.md", "python")
    (tmp_path / "widen.py").write_text(program, encoding="utf-8")
    module = _import("widen", tmp_path, monkeypatch)
    driver = TestDriver(module.app, partitions=3)
    driver.send_raw(module.old, b"AA", b"\xff", timestamp_ms=7, headers=[("event-id", b"1")], partition=0)
    driver.send_raw(module.old, None, None, timestamp_ms=8)
    driver.run()
    copied = sorted(driver.outputs(module.new), key=lambda event: event.timestamp_ms)
    assert [(c.key, c.value, c.timestamp_ms, list(c.headers)) for c in copied] == [
        (b"AA", b"\xff", 7, [("event-id", b"1")]),
        (None, None, 8, []),
    ]


def test_the_program_of_two_versions_is_two_apps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that are the same in both would mix the old app's journal, tables or outputs with the new one's."""
    program, *_ = _blocks(ROOT / "runbooks" / "partitions-changed.md", "python")
    (tmp_path / "versions.py").write_text(program, encoding="utf-8")
    old = _import("versions", tmp_path, monkeypatch).app
    monkeypatch.setenv("DELAYS_VERSION", "-2")
    new = _import("versions", tmp_path, monkeypatch).app
    assert (old.name, new.name) == ("flight-delays", "flight-delays-2")
    assert not declared_app(old).topics.keys() & declared_app(new).topics.keys()


def test_every_worker_setting_is_documented_with_its_default() -> None:
    """Users look up settings in the page, not in the code."""
    rows = _tables(ROOT / "docs" / "reference" / "configuration.md", "## [worker]")
    documented = {_unquoted(row[0]): _unquoted(row[1]) for row in rows}
    actual = {field.name: str(field.default) for field in dataclasses.fields(WorkerSettings)}
    assert len(rows) == len(actual)
    actual |= {"worker_id": "the host's name", "groups": ", ".join(WorkerSettings().groups)}
    assert documented == actual


def test_every_producer_setting_is_documented_with_its_default() -> None:
    """A service is tuned from here, too."""
    documented = {
        _unquoted(row[0]): _unquoted(row[1])
        for row in _table(ROOT / "docs" / "reference" / "configuration.md", "## [producer]")
    }
    assert documented == {field.name: str(field.default) for field in dataclasses.fields(ProducerSettings)}


def test_every_http_setting_is_documented_with_its_default() -> None:
    """The address and the token decide who can read the status."""
    documented = {
        _unquoted(row[0]): _unquoted(row[1])
        for row in _table(ROOT / "docs" / "reference" / "configuration.md", "## [http]")
    }
    assert documented == {field.name: str(field.default) for field in dataclasses.fields(HttpSettings)}


def test_every_otel_setting_is_documented_with_its_default() -> None:
    """An endpoint decides where the data of an app goes."""
    documented = {
        _unquoted(row[0]): _unquoted(row[1])
        for row in _table(ROOT / "docs" / "reference" / "configuration.md", "## [otel]")
    }
    assert documented == {field.name: str(field.default) for field in dataclasses.fields(OtelSettings)}


def test_every_metric_is_documented_with_type_and_labels() -> None:
    """Dashboards and alerts are written from that page."""
    page = ROOT / "docs" / "reference" / "metrics.md"
    sections = re.findall(r"^## .*", page.read_text(encoding="utf-8"), re.MULTILINE)
    rows = [row for section in sections for row in _tables(page, section)]
    documented = [(_unquoted(row[0]), row[1], tuple(row[2].split(", "))) for row in rows]
    assert sorted(documented) == sorted((each.name, each.kind.value, each.labels) for each in FAMILIES)
    for name, _, _, unit, *_ in rows:
        for suffix in ("seconds", "bytes"):
            assert (unit == suffix) == (suffix in _unquoted(name)), name


def test_every_path_of_the_http_port_is_documented() -> None:
    """With whether it needs the token."""
    rows = _table(ROOT / "docs" / "reference" / "http.md", "curl http://127.0.0.1:8080/metrics")
    port = WorkerPort(
        PageApp("app", None),
        HttpSettings(),
        WorkerSettings(),
        WorkerMetrics("app", StatusClients(_unused, _unused, _unused), ManualClock()),
        CapturingLogger(),
    )
    actual = {path: "no" if route.open else "yes" for path, route in port.routes.items()}
    assert {_unquoted(row[0]): row[2] for row in rows} == actual


def test_the_limits_of_the_http_port_are_documented() -> None:
    """An operator who meets one of them must be able to look it up."""
    limits = [row[0] for row in _table(ROOT / "docs" / "reference" / "http.md", "## Limits")]
    assert f"{server.MAX_CONNECTIONS} connections" in limits
    assert f"{server.IDLE_S} s without a byte, or {server.CONNECTION_S:.0f} s in total" in limits
    header, body = server.MAX_HEADER_BYTES // 1024, server.MAX_BODY_BYTES // 1024
    assert f"{header} KiB of request headers, {body} KiB of body" in limits
    assert f"a document that takes longer than {READ_WAIT_S:.0f} s to read" in limits
    assert f"the ends of the inputs take longer than {ENDS_WAIT_S:.0f} s to read" in limits


def _unused() -> Any:
    raise AssertionError("no request is made")


def test_every_drill_setting_is_documented_with_its_default() -> None:
    """What a drill may do is decided here."""
    documented = {
        _unquoted(row[0]): _unquoted(row[1])
        for row in _table(ROOT / "docs" / "reference" / "configuration.md", "## [drills]")
    }
    actual = {field.name: str(field.default) for field in dataclasses.fields(DrillSettings)}
    assert documented == {name: "" if default == "()" else default for name, default in actual.items()}


def test_every_drill_is_documented() -> None:
    """An operator chooses from the page, and must find what `pipeline drill list` shows."""
    rows = _table(ROOT / "docs" / "how-to" / "drills.md", "## The drills")
    assert [_unquoted(row[0]) for row in rows] == list(DRILLS)


def test_every_property_that_cannot_be_set_is_documented() -> None:
    """An error gives the reason at the start; the document gives it before."""
    rows = _table(
        ROOT / "docs" / "reference" / "configuration.md", "The guarantees depend on some properties"
    )
    assert {_unquoted(row[0]) for row in rows} == set(OWNED_PROPERTIES)


def test_the_example_of_a_settings_file_is_read(tmp_path: Path) -> None:
    """It is what people copy."""
    (example,) = _blocks(ROOT / "docs" / "reference" / "configuration.md", "toml")
    file = tmp_path / "pipeline.toml"
    file.write_text(example, encoding="utf-8")
    settings = load_settings(file=file, environ={})
    assert settings.worker.commit_interval_ms == 200
    assert settings.kafka.bootstrap_servers == "kafka-1:9092,kafka-2:9092"
    assert settings.kafka.properties["security.protocol"] == "SASL_SSL"


def test_every_log_event_is_documented_with_levels_and_fields() -> None:
    """An operator looks up an event by its name, and writes alerts by its level and its fields."""
    page = ROOT / "docs" / "reference" / "log-events.md"
    common = {name for row in _table(page, "## Common fields") for name in re.findall(r"`(\w+)`", row[0])}
    rows = re.findall(
        r"^\| `(\w+)` \| ([a-z, ]+) \| (.*?) ?\| (.+) \|$", page.read_text(encoding="utf-8"), re.MULTILINE
    )
    documented = [(name, levels, re.findall(r"`(\w+)`", own)) for name, levels, own, _ in rows]
    logged = [
        (event.name, ", ".join(sorted(event.levels)), sorted(event.fields - common))
        for event in log_events(ROOT / "pipeline")
    ]
    assert sorted(documented) == logged


def test_the_tour_names_every_package() -> None:
    """Readers do not find a directory that the map omits."""
    tour = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    packages = [path.parent.name for path in (ROOT / "pipeline").glob("*/__init__.py")]
    assert packages
    assert [name for name in packages if f"pipeline/{name}/" not in tour] == []


def test_every_place_in_the_tour_exists() -> None:
    """A reader who follows the tour to a module that has moved is lost."""
    tour = ROOT / "ARCHITECTURE.md"
    named = set(re.findall(r"`([\w/.]+/|[\w/]+\.py(?::\w+)?)`", _prose(tour)))
    assert {"pipeline/core/", "runtime/commit/commit_protocol.py"} <= named
    assert [name for name in sorted(named) if not _is_in_the_tree(name)] == []


def test_every_class_in_the_tour_exists() -> None:
    """A reader searches the code for the names that the tour uses."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "pipeline").rglob("*.py"))
    named = set(
        re.findall(r"`([A-Z][a-z]+[A-Za-z]*)(?:\.\w+)?`", _prose(ROOT / "ARCHITECTURE.md")),
    )
    assert {"Publisher", "Environment"} <= named
    assert [name for name in sorted(named) if f"class {name}" not in source] == []


@each_document
def test_modules_that_are_named_exist(document: Path) -> None:
    """Documents name modules by their path; a path that moved sends the reader nowhere."""
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py(?::\w+)?)`", _prose(document)))
    assert [name for name in sorted(named) if not _is_in_the_tree(name)] == []


def _is_in_the_tree(name: str) -> bool:
    """Whether a path, below the root or the package, exists; with `:NAME`, whether it defines NAME."""
    path, _, definition = name.partition(":")
    for base in (ROOT, ROOT / "pipeline"):
        if (base / path).exists():
            source = (base / path).read_text(encoding="utf-8") if definition else ""
            return not definition or f"def {definition}(" in source or f"class {definition}" in source
    return False


IMPORT = re.compile(r"^\s*(?:from\s+(pipeline[\w.]*)\s+import|import\s+(pipeline[\w.]*))", re.MULTILINE)


def test_documents_and_examples_import_only_public_packages() -> None:
    """A program that follows them must survive the next release, which may move every other module."""
    paths = [*DOCUMENTS, *(ROOT / "examples").rglob("*.py")]
    found = {
        (str(path.relative_to(ROOT)), module)
        for path in paths
        for match in IMPORT.findall(path.read_text(encoding="utf-8"))
        if (module := match[0] or match[1]) not in {"pipeline", "pipeline.testing"}
        # The demonstration with flights runs on the processes and signals of `pipeline demo`.
        and not (module.startswith("pipeline.demo.") and path.is_relative_to(ROOT / "examples" / "flights"))
    }
    assert not found


def test_every_variable_that_is_named_anywhere_is_known() -> None:
    """An unknown variable ends the start, so those of the documents and the containers must be known."""
    places = [
        *DOCUMENTS,
        ROOT / "docker-compose.yml",
        ROOT / "Dockerfile",
        *(ROOT / "pipeline").rglob("*.py"),
    ]
    named = {
        found
        for place in places
        for found in re.findall(r"\bPIPELINE_[A-Z0-9_]*[A-Z0-9]\b", place.read_text(encoding="utf-8"))
    }
    assert {"PIPELINE_KAFKA", "PIPELINE_IMAGE", "PIPELINE_STATE_DIR"} <= named
    unknown = []
    for variable in sorted(named):
        try:
            load_settings(environ={variable: "1"})
        except ConfigError as error:
            if "there is no setting" in error.message:
                unknown.append(variable)
    assert unknown == []


def test_no_document_or_error_needs_kafkas_own_tools() -> None:
    """They need Java, and are not where the pipeline is. What the Kafka client cannot do is named here.

    Users and ACLs are created by the administrator of a cluster, who has these tools.
    """
    allowed = {
        *("kafka-transactions.sh", "kafka-reassign-partitions.sh", "kafka-delete-records.sh"),
        *("kafka-acls.sh", "kafka-configs.sh"),
    }
    places = [*DOCUMENTS, *(ROOT / "pipeline").rglob("*.py")]
    named = {
        (str(place.relative_to(ROOT)), tool)
        for place in places
        if "decisions" not in place.parts
        for tool in re.findall(r"\bkafka-[a-z-]+\.sh\b", place.read_text(encoding="utf-8"))
    }
    assert {entry for entry in named if entry[1] not in allowed} == set()
