"""The comparison with other systems: merging of runs, ratios, the page, the plot and the check of outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest
from rich.console import Console

from benchmarks import BenchmarkError
from benchmarks.__main__ import main
from benchmarks.peers import command
from benchmarks.peers.cases import CASES, Case
from benchmarks.peers.environments import PROGRAMS
from benchmarks.peers.live import slope
from benchmarks.peers.outputs import Tally, WrongOutputError
from benchmarks.peers.page import BEGIN, END, PAGE, case_section, plot, summary, with_results
from benchmarks.peers.records import BRANCHES, account_of, amount_of, key_of, note_of, value_of
from benchmarks.peers.results import (
    CaseResult,
    Results,
    Run,
    SystemResult,
    merged,
    ratio,
    read_results,
    write_results,
)
from benchmarks.peers.svg import Bar, bar_chart
from benchmarks.peers.systems import SYSTEMS
from benchmarks.peers.traffic import Traffic, percentile

KEYS = 3
RUN = Run(
    "2026-11-29 20:00", "abcdef0", {"cores": "2"}, {"ours": "abcdef0", "streams": "kafka-streams 4.4.0"}
)


def _system(run: str, *rates: float, error: str = "") -> SystemResult:
    return SystemResult(run, {"records_per_s": list(rates)} if rates else {}, error)


def _results(systems: Mapping[str, SystemResult], case: str = "throughput-5k") -> Results:
    return merged(Results(), case, "run-1", RUN, systems)


def _case() -> Case:
    return CASES["throughput-5k"]


def _sums(numbers: range, wrong: int = -1) -> list[tuple[bytes, bytes]]:
    """The results of the running sum, with a wrong total for one record."""
    rows: dict[bytes, tuple[int, int]] = {}
    found = []
    for number in numbers:
        key = key_of(number, KEYS)
        total, count = rows.get(key, (0, 0))
        rows[key] = total + amount_of(number), count + 1
        value = {"number": number, "total": rows[key][0] + (number == wrong), "count": rows[key][1]}
        found.append((key, msgspec.json.encode(value)))
    return found


def _tallied(tally: Tally, rows: list[tuple[bytes, bytes]]) -> Tally:
    for key, value in rows:
        tally.add(key, value)
    return tally


def test_a_run_of_one_system_keeps_the_values_of_the_others() -> None:
    """A case is measured again for one system without an hour for all of them."""
    before = _results({"ours": _system("run-1", 10.0), "quix": _system("run-1", 2.0)})
    after = merged(before, "throughput-5k", "run-2", RUN, {"ours": _system("run-2", 20.0)})
    systems = after.cases["throughput-5k"].systems
    assert systems["ours"].median("records_per_s") == 20.0
    assert systems["quix"].median("records_per_s") == 2.0
    assert set(after.runs) == {"run-1", "run-2"}


def test_a_run_without_systems_is_dropped_from_the_file() -> None:
    """Otherwise the file would grow with each run, and name runs that nothing refers to."""
    before = _results({"ours": _system("run-1", 10.0)})
    after = merged(before, "throughput-5k", "run-2", RUN, {"ours": _system("run-2", 20.0)})
    assert set(after.runs) == {"run-2"}


def test_a_ratio_is_the_median_of_the_ratios_of_turns() -> None:
    """The machine drifts between turns, and both systems of one turn with it."""
    case = CaseResult({"ours": _system("r", 10.0, 40.0, 90.0), "raw": _system("r", 20.0, 80.0, 90.0)})
    assert ratio(case, "ours", "raw", "records_per_s") == 0.5


def test_systems_of_two_runs_have_no_ratio() -> None:
    """Absolute values of two runs differ by whatever else the machine did."""
    case = CaseResult({"ours": _system("r1", 10.0), "raw": _system("r2", 20.0)})
    assert ratio(case, "ours", "raw", "records_per_s") is None
    assert ratio(case, "ours", "quix", "records_per_s") is None


def test_a_failed_turn_leaves_a_ratio_of_medians() -> None:
    """Turns of different numbers cannot be paired."""
    case = CaseResult({"ours": _system("r", 10.0, 20.0, 60.0), "raw": _system("r", 10.0, 10.0)})
    assert ratio(case, "ours", "raw", "records_per_s") == 2.0


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Each run reads the file, and writes it again."""
    file = tmp_path / "bench" / "peers.json"
    assert read_results(file) == Results()
    results = _results({"ours": _system("run-1", 10.0)})
    write_results(file, results)
    assert read_results(file) == results


@pytest.mark.parametrize("content", [b"{", b'{"format":2}'])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    """A run must not overwrite what it cannot read."""
    file = tmp_path / "peers.json"
    file.write_bytes(content)
    with pytest.raises(BenchmarkError, match="delete it to begin anew"):
        read_results(file)


def test_the_page_has_the_medians_between_its_markers() -> None:
    """The text around the tables is written by hand, and must stay."""
    results = _results({"ours": _system("run-1", 300.0, 100.0, 200.0), "quix": _system("run-1", 20.0, 20.0)})
    page = with_results(f"before\n{BEGIN}\nold\n\n### Old\n\nold\n\n{END}\nafter\n", results, CASES)
    assert page.startswith(f"before\n{BEGIN}\n")
    assert page.endswith(f"{END}\nafter\n")
    assert "old" not in page
    assert "200 (100 to 300)" in page
    assert with_results(page, results, CASES) == page


def test_a_case_without_a_result_keeps_its_part_of_the_page() -> None:
    """A case is measured again on another machine, which does not have the results of the others."""
    page = with_results(f"{BEGIN}\n{END}", _results({"ours": _system("run-1", 300.0)}), CASES)
    batch = _results({"ours": _system("run-1", 700.0)}, "batch")
    both = with_results(page, batch, CASES)
    results = merged(batch, "throughput-5k", "run-1", RUN, {"ours": _system("run-1", 300.0)})
    assert both == with_results(f"{BEGIN}\n{END}", results, CASES)
    again = with_results(both, _results({"ours": _system("run-1", 400.0)}), CASES)
    assert "| 300 |" not in again
    assert again == with_results(again, batch, CASES)


def test_the_page_of_the_documentation_is_that_of_its_results() -> None:
    """The page and the file of values would contradict each other."""
    text = PAGE.read_text(encoding="utf-8")
    assert with_results(text, read_results(command.RESULT), CASES) == text


def test_a_page_without_markers_is_not_written() -> None:
    """A page that was edited by mistake would lose its end."""
    with pytest.raises(BenchmarkError, match="markers"):
        with_results("no markers", Results(), CASES)


def test_the_page_of_the_documentation_has_the_markers() -> None:
    """The command replaces what is between them."""
    text = PAGE.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1


def test_a_factor_above_one_means_that_the_first_system_is_ahead() -> None:
    """Of a rate, more is better; of a latency, less."""
    rates = _results({"ours": _system("run-1", 300.0), "quix": _system("run-1", 20.0)})
    section = case_section("throughput-5k", _case(), rates.cases["throughput-5k"], rates.runs)
    assert "| 20 (20 to 20) | - | - | 15.0 |" in section
    measured = {
        name: SystemResult("run-1", {"p50_ms": [ms]}) for name, ms in (("ours", 10.0), ("quix", 40.0))
    }
    latencies = _results(measured, "latency")
    section = case_section("latency", CASES["latency"], latencies.cases["latency"], latencies.runs)
    assert "| 40 (40 to 40) | - | - | 4.0 |" in section


def test_errors_and_skipped_systems_are_named_on_the_page() -> None:
    """A missing row alone would look like a system that was never measured."""
    results = _results(
        {
            "ours": _system("run-1", 300.0),
            "faust": _system("run-1", error="turn 1: record 7 was put out twice"),
            "streams-1": SystemResult("run-1", skipped="there is no JDK compiler"),
        }
    )
    section = case_section("throughput-5k", _case(), results.cases["throughput-5k"], results.runs)
    assert "- faust-streaming failed: `turn 1: record 7 was put out twice`" in section
    assert "- Kafka Streams, one thread was skipped: there is no JDK compiler." in section
    assert max(len(line) for line in section.splitlines() if not line.startswith(("|", "!"))) <= 100


def test_the_summary_links_to_the_section_of_each_case() -> None:
    """The anchor is made from the heading, as the site makes it."""
    results = _results({"ours": _system("run-1", 300.0)})
    assert "| [Running sum, 5 thousand keys](#running-sum-5-thousand-keys), records/s | 300 | - |" in summary(
        results, CASES
    )


def test_a_plot_is_well_formed_and_has_a_bar_for_each_value() -> None:
    """A browser shows nothing of a file that it cannot parse."""
    results = _results(
        {"ours": _system("run-1", 300.0), "quix": _system("run-1", 20.0), "faust": _system("r")}
    )
    root = ET.fromstring(plot(_case(), results.cases["throughput-5k"]))  # noqa: S314 - our own text
    bars = [part for part in root if part.tag.endswith("rect")]
    assert len(bars) == 3  # with the background


def test_the_longest_bar_and_its_value_fit_the_plot() -> None:
    """A value that is cut off cannot be read."""
    text = bar_chart("a < b", "ms", [Bar("one", 10.0, 5.0, 40.0, "10"), Bar("two", 0.0, 0.0, 0.0, "0")])
    root = ET.fromstring(text)  # noqa: S314 - our own text
    width = float(root.attrib["width"])
    places = [float(part.attrib[name]) for part in root for name in ("x", "x2") if name in part.attrib]
    assert max(places) <= width - 40
    assert "a &lt; b" in text


def test_results_in_order_are_complete_when_each_record_has_one() -> None:
    """The clock stops only when nothing is missing."""
    rows = _sums(range(30))
    tally = _tallied(Tally("sum", 30, KEYS), rows[:-1])
    assert not tally.complete
    tally.add(*rows[-1])
    assert tally.complete


def test_a_result_that_comes_twice_is_an_error() -> None:
    """A system that is fast because it repeats records is not measured."""
    rows = _sums(range(30))
    with pytest.raises(WrongOutputError, match="record 29 was put out twice"):
        _tallied(Tally("sum", 30, KEYS), [*rows, rows[-1]])


def test_a_result_that_is_missing_in_the_middle_is_an_error() -> None:
    """The count of the key shows it at its next result."""
    rows = _sums(range(30))
    with pytest.raises(WrongOutputError, match="expected"):
        _tallied(Tally("sum", 30, KEYS), [*rows[:10], *rows[11:]])


def test_a_wrong_total_is_an_error() -> None:
    """A sum over a lost or doubled row has the right count by chance only."""
    with pytest.raises(WrongOutputError, match="record 12: total"):
        _tallied(Tally("sum", 30, KEYS), _sums(range(30), wrong=12))


@pytest.mark.parametrize(
    ("key", "number", "said"), [(b"account-9", 1, "under the key"), (b"account-0", 30, "not in the input")]
)
def test_a_result_of_another_key_or_record_is_an_error(key: bytes, number: int, said: str) -> None:
    """It would be counted for a record that has no result."""
    value = msgspec.json.encode({"number": number, "total": 0, "count": 1})
    with pytest.raises(WrongOutputError, match=said):
        Tally("sum", 30, KEYS).add(key, value)


def test_copied_inputs_need_no_sums_and_each_comes_once() -> None:
    """The raw client computes nothing, but must not lose a record either."""
    tally = Tally("copy", 5, KEYS)
    for number in range(5):
        tally.add(key_of(number, KEYS), value_of(number, KEYS))
    assert tally.complete
    with pytest.raises(WrongOutputError, match="twice"):
        tally.add(key_of(0, KEYS), value_of(0, KEYS))


def test_sums_by_branch_are_verified_in_any_order_of_the_accounts() -> None:
    """The partitions of the topic between two stages are read side by side."""
    keys, tally = 2 * BRANCHES, Tally("two-stages", 2, 2 * BRANCHES)
    number = next(n for n in range(1, keys) if account_of(n, keys) % BRANCHES == 0)
    tally = Tally("two-stages", number + 1, keys)
    tally.add(b"branch-0", msgspec.json.encode({"number": number, "total": amount_of(number), "count": 1}))
    tally.add(b"branch-0", msgspec.json.encode({"number": 0, "total": amount_of(number), "count": 2}))
    assert tally.outputs == 2


def test_an_aggregation_is_complete_with_the_last_sum_of_each_key() -> None:
    """It may put out one sum for many records, but the last one must be exact."""
    rows = _sums(range(30))
    last = dict(rows)
    assert _tallied(Tally("batch", 30, KEYS), list(last.items())).complete
    first = rows[:KEYS]
    assert not _tallied(Tally("batch", 30, KEYS), first).complete
    wrong = [(key, value) for key, value in _sums(range(30), wrong=29) if value != last[key]][-1:]
    with pytest.raises(WrongOutputError, match="expected"):
        _tallied(Tally("batch", 30, KEYS), wrong)


def test_inputs_are_json_of_the_size_that_is_asked_for() -> None:
    """Every system parses them; a malformed record would be a dead letter."""
    note = note_of(10_000)
    assert len(note) == 10_000
    assert msgspec.json.decode(value_of(7, 5, note))["note"] == note.decode()
    assert msgspec.json.decode(value_of(7, 5)) == {"number": 7, "amount": 7, "branch": "branch-3"}


def test_a_percentile_is_a_value_that_was_measured() -> None:
    """An interpolated value was no record's latency."""
    ordered = [float(value) for value in range(1, 101)]
    assert (percentile(ordered, 0.5), percentile(ordered, 0.99)) == (51.0, 100.0)
    with pytest.raises(BenchmarkError, match="no record"):
        percentile([], 0.5)


def test_the_growth_of_memory_is_the_slope_of_a_line() -> None:
    """One sample more or less must not decide it."""
    assert slope([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]) == pytest.approx(2.0)
    with pytest.raises(BenchmarkError, match="no slope"):
        slope([(0.0, 1.0)])


def test_every_case_names_known_systems_and_the_first_is_ours() -> None:
    """The first system is what factors refer to."""
    for name, case in CASES.items():
        assert [system for system in case.systems if system not in SYSTEMS] == [], name
        assert case.systems[0].startswith("ours"), name


@pytest.mark.parametrize("file", sorted(PROGRAMS.glob("*.requirements.txt")), ids=lambda file: file.stem)
def test_each_system_is_pinned_with_hashes(file: Path) -> None:
    """Two runs of the comparison measure the same releases."""
    text = file.read_text(encoding="utf-8").replace("\\\n", " ")
    pins = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert pins
    assert [pin for pin in pins if "==" not in pin or "--hash=sha256:" not in pin] == []


def _take_turns(
    file: Path, monkeypatch: pytest.MonkeyPatch, case: Case, systems: Sequence[str], turns: int
) -> bool:
    """Run a case whose turns need no Kafka and no environment."""
    monkeypatch.setattr(command, "opened", lambda _environments: nullcontext())
    monkeypatch.setattr(
        command, "_environments", lambda names, _console: ({SYSTEMS[n].environment: None for n in names}, {})
    )
    monkeypatch.setattr(command, "versions", lambda _environments: {})
    return command.run_case("throughput-5k", case, systems, turns, file, Console(quiet=True))


def test_the_first_system_of_a_turn_rotates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one meets what the last turn has left to the disk and to the broker."""
    order = []

    def turn(_bench: object, _job: object, system: str, _name: str) -> dict[str, float]:
        order.append(system)
        return {"records_per_s": 1.0}

    assert _take_turns(
        tmp_path / "r.json", monkeypatch, replace(_case(), turn=turn), ["ours", "quix", "raw"], 3
    )
    assert order == ["ours", "quix", "raw", "quix", "raw", "ours", "raw", "ours", "quix"]


def test_a_failed_turn_is_told_and_the_others_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One system's error must not take the values of half an hour with it."""

    def turn(_bench: object, _job: object, system: str, name: str) -> dict[str, float]:
        if (system, name[-1]) == ("quix", "2"):
            raise WrongOutputError("record 7 was put out twice")
        return {"records_per_s": 1.0}

    file = tmp_path / "r.json"
    assert not _take_turns(file, monkeypatch, replace(_case(), turn=turn), ["ours", "quix"], 3)
    systems = read_results(file).cases["throughput-5k"].systems
    assert systems["quix"].error == "turn 2: record 7 was put out twice"
    assert [len(systems[name].measures["records_per_s"]) for name in ("ours", "quix")] == [3, 2]


def test_an_interrupted_case_keeps_its_complete_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A case takes up to half an hour."""

    def turn(_bench: object, _job: object, _system: str, name: str) -> dict[str, float]:
        if name.endswith("2"):
            raise KeyboardInterrupt
        return {"records_per_s": 1.0}

    file = tmp_path / "r.json"
    with pytest.raises(KeyboardInterrupt):
        _take_turns(file, monkeypatch, replace(_case(), turn=turn), ["ours"], 3)
    assert read_results(file).cases["throughput-5k"].systems["ours"].measures == {"records_per_s": [1.0]}


def test_a_turn_that_would_exceed_the_time_of_a_case_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A case promises to end in half an hour, whatever the machine does."""
    monkeypatch.setattr(command, "BUDGET_S", 0.0)
    file = tmp_path / "r.json"
    case = replace(_case(), turn=lambda *_: {"records_per_s": 1.0})
    assert _take_turns(file, monkeypatch, case, ["ours"], 3)
    assert read_results(file).cases["throughput-5k"].systems["ours"].measures == {"records_per_s": [1.0]}


@pytest.mark.peers
@pytest.mark.timeout(600)
def test_a_small_comparison_runs_and_its_outputs_are_verified(tmp_path: Path) -> None:
    """A published measurement must be repeatable. It installs the raw client, so it is not in the suite."""
    file = tmp_path / "peers.json"
    options = ["--case", "throughput-5k", "--turns", "1", "--only", "ours,raw", "--records", "50000"]
    assert main(["peers", *options, "--no-page", "--result", str(file)]) == 0
    systems = read_results(file).cases["throughput-5k"].systems
    assert set(systems) == {"ours", "raw", "raw-consume", "raw-produce", "raw-transactions"}
    assert systems["ours"].measures["verified"] == [50_000]


class FullAtFirst:
    """The calls of a producer whose queue is full, until it was polled."""

    def __init__(self, polls: int = 0) -> None:
        self.sent: list[bytes] = []
        self.polls = polls

    def produce(self, topic: str, value: bytes, key: bytes, partition: int) -> None:
        if not self.polls:
            raise BufferError("Local: Queue full")
        self.sent.append(key)

    def poll(self, seconds: float) -> int:
        self.polls += 1
        return 0


def test_traffic_waits_while_the_queue_of_the_client_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is slower than the rate must not end the case: the wait is a part of the latency."""
    traffic = Traffic("127.0.0.1:1", "in", "out", 1, Tally("sum", 1, 10), keys=10)
    producer = FullAtFirst()
    monkeypatch.setattr(traffic, "_producer", producer)
    traffic._send_next()
    assert (producer.sent, producer.polls, traffic.sent) == ([key_of(0, 10)], 1, 1)
    traffic._consumer.close()


def test_records_that_are_sent_together_are_those_of_one_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client sends a request for each partition, however many records it has for it."""
    traffic = Traffic("127.0.0.1:1", "in", "out", 1, Tally("sum", 100, 5), keys=5)
    producer = FullAtFirst(polls=1)
    monkeypatch.setattr(traffic, "_producer", producer)
    traffic._send_next()
    traffic.flow(10, together=3)
    for _ in range(6):
        traffic._send_next()
    traffic.flow(0)
    traffic._send_next()
    numbers = [0, 5, 10, 15, 6, 11, 16, 7, 12, 17, 8, 13, 18, 9, 14, 19, 20, 25, 30, 35]
    assert sorted(traffic._sent_s) == sorted(numbers)
    assert producer.sent == [key_of(number, 5) for number in numbers]
    traffic._consumer.close()
