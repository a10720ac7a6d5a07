"""The report as one HTML page: `page_of`. It needs no script, no other file and no network.

The page shows only what the JSON contains, and contains the JSON itself. All text of the report is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from math import ceil, floor, log10
from pathlib import Path

import msgspec

from pipeline.core.suggestions import counted
from pipeline.drills.report import Report, TaskTimeline

__all__ = ["page_of"]

_CSS = Path(__file__).with_name("page.css")
_TICKS = 5  # at most, after 0
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)  # between ticks, times a power of ten
UNKNOWN = "-"
_COLUMNS = (
    *(
        "task",
        "before",
        "after",
        "detect",
        "fence",
        "copy",
        "replay",
        "acquired",
        "first commit",
        "caught up",
    ),
    *("restored from", "entries"),
)
_STAGES = (
    ("wait", "not detected yet"),
    ("detect", "detected, waiting for an owner"),
    ("restore", "fenced and restored"),
    ("commit", "until the first commit"),
    ("late", "until caught up"),
)


def page_of(report: Report) -> str:
    """The page."""
    identity = report.identity
    badge = f'<span class="badge {_class(report.verdict)}">{escape(report.verdict)}</span>'
    where = f"App {identity.app}, {_time(identity.began_ms)}, on {identity.host}. {identity.reason}"
    body = [
        f"<header><h1>{escape(identity.drill)}</h1>{badge}</header>",
        f'<p class="soft">{escape(where)}</p>',
        f'<p class="lead">{escape(report.hypothesis)}</p>',
        _cards(report),
        _deviations(report),
        _timeline(report),
        f'<div class="two">{_fault(report)}{_steady_state(report)}</div>',
        _stages(report),
        f'<div class="two">{_expectations(report)}{_after(report)}</div>',
        _differences(report),
        _findings(report),
        _identity(report),
        _json(report),
    ]
    title = f"{identity.drill} on {identity.app}: {report.verdict}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{_CSS.read_text(encoding='utf-8')}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _cards(report: Report) -> str:
    recovery, point, radius = report.recovery, report.recovery_point, report.blast_radius
    late = recovery.measured_s is not None and recovery.measured_s - recovery.fault_s > recovery.objective_s
    paused = recovery.unaffected_pause_s > recovery.unaffected_limit_s
    kinds = sorted({effect.kind for effect in point.effects})
    cards = []
    if report.measures_recovery:
        text = f"predicted {recovery.predicted_s:.1f} s, objective {recovery.objective_s:g} s"
        cards.append(_card("Recovery", _seconds(recovery.measured_s), text, bad=late))
    cards += [
        _card(
            "Exactly once",
            ", ".join(kinds) if kinds else "yes",
            f"{counted(point.input_offsets, 'input offset')} in {counted(point.entries, 'entry')}; the chain is "
            f"{'intact' if point.chain_intact else 'broken'}",
            bad=bool(kinds),
        ),
        _card(
            "Other tasks",
            f"{recovery.unaffected_pause_s:.2f} s",
            f"longest pause; the limit is {recovery.unaffected_limit_s:.2f} s",
            bad=paused,
        ),
        _card(
            "Tasks touched",
            f"{len(radius.touched)} of {report.steady_state.tasks}",
            f"{len(radius.predicted)} predicted, {len(radius.unexpected)} not predicted",
        ),
    ]
    if point.states_compared:
        cards.append(
            _card(
                "States equal",
                f"{point.states_equal} of {point.states_compared}",
                "hash of the live rows and of the replay",
                bad=point.states_equal < point.states_compared,
            )
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _card(name: str, value: str, text: str, *, bad: bool = False) -> str:
    mark = ' class="bad"' if bad else ""
    return (
        f'<div class="card"><span class="name">{escape(name)}</span><b{mark}>{escape(value)}</b>'
        f"<span>{escape(text)}</span></div>"
    )


def _deviations(report: Report) -> str:
    found = [*report.deviations, *([f"aborted: {report.abort_fired}"] if report.abort_fired else [])]
    return _section("What deviated", _list(found), "deviations") if found else ""


def _timeline(report: Report) -> str:
    """A bar for each touched task, in seconds after the fault."""
    if not report.timeline:
        return ""
    step_s, count = _axis(max([1.0, *(value for each in report.timeline for value in _ends(each))]))
    end_s = step_s * count
    rows = "".join(_bar(each, end_s) for each in report.timeline)
    ticks = "".join(
        f'<span style="left:{100 * n / count:.1f}%">{step_s * n:g} s</span>' for n in range(count + 1)
    )
    legend = "".join(f'<span><i class="{name}"></i>{escape(text)}</span>' for name, text in _STAGES)
    sides = ('<div class="task"></div>', '<div class="owner"></div>')
    scale = f'<div class="row scale">{sides[0]}<div class="axis">{ticks}</div>{sides[1]}</div>'
    return _section(
        "Timeline, seconds after the fault",
        f'<div class="legend">{legend}</div><div class="chart">{rows}{scale}</div>',
    )


def _axis(end_s: float) -> tuple[float, int]:
    """The seconds between two ticks, and the number of ticks after 0 with which the axis reaches the end."""
    power = 10.0 ** floor(log10(end_s / _TICKS))
    step_s = next(step * power for step in _STEPS if step * power * _TICKS >= end_s)
    return step_s, ceil(end_s / step_s)


def _ends(each: TaskTimeline) -> list[float]:
    values = (each.detect_s, each.fence_s, each.acquired_s, each.first_commit_s, each.caught_up_s)
    return [value for value in values if value is not None]


def _bar(each: TaskTimeline, end_s: float) -> str:
    """The stages as segments. A stage that is unknown is part of the one before it."""
    acquired = each.replay_s if each.replay_s is not None else each.acquired_s
    fenced = each.fence_s if each.fence_s is not None else each.acquired_s
    detected = each.detect_s if each.detect_s is not None else fenced
    points = [
        ("wait", _least(detected, fenced, acquired, each.first_commit_s)),
        ("detect", fenced),
        ("restore", acquired),
        ("commit", each.first_commit_s),
        ("late", each.caught_up_s),
    ]
    at_s = 0.0
    segments = []
    for name, until_s in points:
        if until_s is None or until_s <= at_s:
            continue
        left, width = 100 * at_s / end_s, 100 * (until_s - at_s) / end_s
        text = f"{dict(_STAGES)[name]}: {at_s:.1f} to {until_s:.1f} s"
        segments.append(
            f'<i class="{name}" style="left:{left:.2f}%;width:{width:.2f}%" title="{escape(text)}"></i>'
        )
        at_s = until_s
    moved = each.before if each.before == each.after else f"{each.before} → {each.after}"
    star = "" if each.predicted else " *"
    return (
        f'<div class="row"><div class="task">{escape(each.task)}{star}</div>'
        f'<div class="track">{"".join(segments)}</div><div class="owner">{escape(moved)}</div></div>'
    )


def _least(*values: float | None) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _fault(report: Report) -> str:
    fault = report.fault
    facts = [f"{_after_fault(each.at_ms, fault.injected_ms)}: {each.text}" for each in fault.evidence]
    return _section(
        "Fault",
        f'<p class="soft">Target: {escape(fault.target)}. Injected {_time(fault.injected_ms)}.</p>'
        f"{_list(fault.actions)}<h2>Evidence</h2>{_list(facts)}",
    )


def _after_fault(at_ms: int, injected_ms: int) -> str:
    return f"{(at_ms - injected_ms) / 1000:.1f} s"


def _steady_state(report: Report) -> str:
    steady = report.steady_state
    return _section(
        f"Steady state, {steady.observed_s:g} s before the fault",
        _facts(
            [
                ("workers", ", ".join(steady.workers)),
                ("tasks live", f"{steady.tasks_live} of {steady.tasks}"),
                ("input", f"{_rate(steady.records_per_s)} records/s"),
                ("commits", f"{_rate(steady.commits_per_s)} per second"),
                ("lag", f"{steady.lag:,}"),
                ("longest pause", f"{steady.longest_pause_s:.2f} s"),
                ("open dead letters", f"{steady.open_dead_letters:,}"),
            ]
        ),
    )


def _stages(report: Report) -> str:
    if not report.timeline:
        return ""
    rows = [
        [
            each.task + ("" if each.predicted else " *"),
            each.before,
            each.after,
            *map(_seconds, (each.detect_s, each.fence_s, each.copy_s, each.replay_s)),
            *map(_seconds, (each.acquired_s, each.first_commit_s, each.caught_up_s)),
            each.restored_from or UNKNOWN,
            UNKNOWN if each.replayed_entries is None else f"{each.replayed_entries:,}",
        ]
        for each in report.timeline
    ]
    text = '<p class="soft">* touched, and not predicted</p>' if report.blast_radius.unexpected else ""
    return _section("Stages of each touched task", _table(_COLUMNS, rows, numbers=(*range(3, 10), 11)) + text)


def _expectations(report: Report) -> str:
    return _section(
        "Tolerance and abort conditions",
        f"{_list(report.tolerance)}{_list(f'abort if {each}' for each in report.abort_conditions)}"
        f"<h2>Preconditions that were met</h2>{_list(report.preconditions)}",
    )


def _after(report: Report) -> str:
    restored = [f"{each.what}: {each.result}" for each in report.restored] or [
        "nothing had to be restored at the end"
    ]
    left = report.leftovers or ["nothing is left of the drill"]
    notes = f"<h2>Notes</h2>{_list(report.notes)}" if report.notes else ""
    return _section("Restored", f"{_list(restored)}<h2>Leftovers</h2>{_list(left)}{notes}")


def _differences(report: Report) -> str:
    if not report.differences:
        return ""
    rows = [[each.name, each.before, each.now] for each in report.differences]
    return _section("Since the last run of this drill", _table(("value", "before", "now"), rows))


def _findings(report: Report) -> str:
    if not report.findings:
        return ""
    rows = [[each.text, each.hint, each.owner or UNKNOWN, each.due or UNKNOWN] for each in report.findings]
    return _section("Findings", _table(("finding", "hint", "owner", "due"), rows))


def _identity(report: Report) -> str:
    identity = report.identity
    return _section(
        "Identity",
        _facts(
            [
                ("id", identity.id),
                ("drill", f"{identity.drill}, version {identity.drill_version}"),
                ("pipeline", identity.pipeline_version),
                ("commit", identity.commit or UNKNOWN),
                ("Kafka", f"{identity.kafka}, cluster {identity.cluster_id}"),
                ("operator", f"{identity.operator} on {identity.host}"),
                ("began, ended", f"{_time(identity.began_ms)}, {_time(identity.ended_ms)}"),
                ("logs", ", ".join(report.logs) or UNKNOWN),
            ]
        ),
    )


def _json(report: Report) -> str:
    text = msgspec.json.format(msgspec.json.encode(report)).decode()
    return _section(
        "JSON", f"<details><summary>The report as JSON</summary><pre>{escape(text)}</pre></details>"
    )


def _section(title: str, content: str, kind: str = "") -> str:
    return f'<section class="{kind}"><h2>{escape(title)}</h2>{content}</section>'


def _list(texts: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def _facts(pairs: Sequence[tuple[str, str]]) -> str:
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
    return f'<dl class="facts">{facts}</dl>'


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    right = set(numbers)

    def cells(tag: str, row: Sequence[str]) -> str:
        marks = {True: ' class="n"', False: ""}
        return "".join(f"<{tag}{marks[at in right]}>{escape(cell)}</{tag}>" for at, cell in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{cells("th", titles)}</tr>{body}</table></div>'


def _seconds(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1f} s"


def _rate(value: float) -> str:
    return f"{value:.1f}" if 0 < value < 1 else f"{value:,.0f}"


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _class(verdict: str) -> str:
    return verdict.replace(" ", "-")
