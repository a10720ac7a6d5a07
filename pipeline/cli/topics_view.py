"""Formats a plan of topics, as text and as a JSON document. The names of JSON fields are stable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from pipeline.core.suggestions import counted
from pipeline.ops.topics.applying import TopicResult
from pipeline.ops.topics.plan import Change, Plan, TopicAction, TopicPlan

__all__ = ["outcome_lines", "plan_document", "plan_text", "summary"]

_MARKS = {
    TopicAction.CREATE: ("+", "green"),
    TopicAction.CHANGE: ("~", "yellow"),
    TopicAction.DELETE: ("-", "red"),
}


def plan_text(plan: Plan, *, everything: bool = False) -> Text:
    """The plan, topic by topic. With `everything`, also topics without a difference or without a declaration."""
    text = Text()
    for each in plan.topics:
        if each.action is not TopicAction.NONE or each.problems:
            _append_topic(text, each)
        elif everything:
            gone = " (deleted)" if each.topic.deleted else ""
            text.append(f"  = {each.topic.name}  as declared{gone}\n", style="dim")
    for name in plan.undeclared if everything else ():
        text.append(f"  ? {name}  no declaration; not changed\n", style="dim")
    text.append(summary(plan))
    return text


def summary(plan: Plan) -> str:
    """`1 to create, 2 to change, 1 refused; 3 as declared; 2 without a declaration (not changed)`."""
    to_do = [each for each in plan.topics if each.to_do]
    counts = [
        (sum(each.action is action for each in to_do), f"to {action.value}")
        for action in (TopicAction.CREATE, TopicAction.CHANGE, TopicAction.DELETE)
    ]
    counts.append((len(plan.refused), "refused"))
    said = ", ".join(f"{count} {what}" for count, what in counts if count) or "nothing to do"
    same = len(plan.topics) - len(to_do) - len(plan.refused)
    rest = f"; {same} as declared" if same else ""
    return (
        said
        + rest
        + (f"; {len(plan.undeclared)} without a declaration (not changed)" if plan.undeclared else "")
    )


def _append_topic(text: Text, each: TopicPlan) -> None:
    mark, colour = ("x", "bold red") if each.problems else _MARKS[each.action]
    text.append(f"  {mark} {each.topic.name}", style=colour)
    text.append(f"  {_what(each)}\n")
    width = max((len(change.what) for change in each.changes), default=0)
    for change in each.changes:
        text.append("      ! " if change.loss else "        ", style="red")
        text.append(f"{change.what:<{width}}  {_arrow(each.action, change)}\n")
        if change.loss and not each.problems:  # otherwise a problem already names it
            text.append(f"        {'':<{width}}  {change.loss}\n", style="red")
    for warning in each.warnings:
        text.append(f"        note: {warning}\n", style="yellow")
    for problem in each.problems:
        text.append(f"        refused: {problem.text}\n", style="bold red")
        if problem.hint:
            text.append(f"          -> {problem.hint}\n")


def _what(each: TopicPlan) -> str:
    if each.action is TopicAction.CREATE:
        copies = f", replication {each.topic.replication}" if each.topic.replication else ""
        return f"is created with {counted(each.topic.partitions, 'partition')}{copies}"
    return "is deleted, with all its records" if each.action is TopicAction.DELETE else "is changed"


def _arrow(action: TopicAction, change: Change) -> str:
    if action is TopicAction.CREATE:
        return _value(change.after, default=False)
    before = _value(change.before, default=change.from_default)
    return f"{before} -> {_value(change.after, default=change.to_default)}"


def _value(value: str | None, *, default: bool) -> str:
    shown = '""' if value == "" else value
    if default:
        return f"default ({shown})" if shown is not None else "default"
    return shown if shown is not None else "unknown"


def plan_document(plan: Plan, outcomes: Sequence[TopicResult] = ()) -> dict[str, Any]:
    """The JSON document. `state` is `same`, `planned` or `refused`; with `outcomes`, also `done` or `failed`."""
    found = {outcome.plan.topic.name: outcome for outcome in outcomes}
    return {
        "topics": [_topic_document(each, found.get(each.topic.name)) for each in plan.topics],
        "undeclared": list(plan.undeclared),
        "empty": plan.empty,
    }


def _topic_document(each: TopicPlan, outcome: TopicResult | None) -> dict[str, Any]:
    problems = [*each.problems, *([outcome.problem] if outcome is not None and outcome.problem else [])]
    return {
        "name": each.topic.name,
        "owner": each.topic.owner,
        "action": each.action.value,
        "state": _state(each, outcome),
        "changes": [
            {
                "setting": change.what,
                "before": change.before,
                "after": change.after,
                "before_is_default": change.from_default,
                "after_is_default": change.to_default,
                "data_loss": change.loss,
            }
            for change in each.changes
        ],
        "done": list(outcome.done) if outcome is not None else [],
        "warnings": list(each.warnings),
        "problems": [{"message": problem.text, "hint": problem.hint} for problem in problems],
    }


def _state(each: TopicPlan, outcome: TopicResult | None) -> str:
    if each.problems:
        return "refused"
    if each.action is TopicAction.NONE:
        return "same"
    if outcome is None:
        return "planned"
    return "failed" if outcome.problem else "done"


def outcome_lines(outcome: TopicResult) -> Iterator[str]:
    """The lines that report the result for one topic."""
    name = outcome.plan.topic.name
    if outcome.problem is None:
        yield f"{name}: {', '.join(outcome.done)}"
        return
    yield f"{name}: refused: {outcome.problem.text}"
    if outcome.problem.hint:
        yield f"  -> {outcome.problem.hint}"
