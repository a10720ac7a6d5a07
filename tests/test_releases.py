"""What a release says of itself in several places agrees, and commits have readable subjects."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from pipeline.broker.install import shipped_lock

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
POLICY = (ROOT / "docs" / "reference" / "compatibility.md").read_text(encoding="utf-8")

# Subjects are checked from this commit on.
_FIRST_CHECKED = "f8b2930f75d2b73a9122157dd23d4e8ec26c061b"
_MOST_CHARACTERS = 72
# Of "Added", "Adds" and "Adding". Imperatives that end like these are listed.
_NOT_IMPERATIVE = re.compile(r"\w+(ed|ing|[^su]s)")
_IMPERATIVE = frozenset(
    {
        "Alias",
        "Bring",
        "Embed",
        "Exceed",
        "Feed",
        "Need",
        "Ping",
        "Proceed",
        "Seed",
        "Shed",
        "Speed",
        "String",
        "Wed",
    }
)


def test_documents_name_the_wheel_of_this_version() -> None:
    """A reader pastes the name of the file; a wrong one is not found."""
    named = {
        (str(page.relative_to(ROOT)), version)
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for version in re.findall(r"exactly_once_pipeline-([\w.]+)-py3", page.read_text(encoding="utf-8"))
    }
    assert {page for page, _ in named} >= {"README.md", "docs/how-to/sinks.md"}
    assert {version for _, version in named} == {PROJECT["version"]}


def test_the_changelog_begins_with_this_version() -> None:
    """What a user installs must be described; a version without an entry was forgotten."""
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == PROJECT["version"]


def _supported(component: str) -> str:
    """The versions of a component in the policy's table."""
    (found,) = re.finditer(rf"^\| {component} \| ([^|]+) \|", POLICY, re.MULTILINE)
    return found[1].strip()


def test_the_policy_names_the_python_versions_of_the_package() -> None:
    """pip decides by the metadata, and people by the page."""
    prefix = "Programming Language :: Python :: "
    classified = [text.removeprefix(prefix) for text in PROJECT["classifiers"] if text.startswith(prefix)]
    assert _supported("Python") == ", ".join(classified)
    assert PROJECT["requires-python"] == f">={classified[0]}"


def test_the_policy_names_the_kafka_releases_of_the_tests() -> None:
    """A release that is claimed as supported must be one that a test can start."""
    assert shipped_lock().kafka_version.startswith(f"{_supported('Kafka brokers')}.")
    (oldest,) = re.findall(r"^\| \| ([\d.]+) \| `make test-old-kafka`", POLICY, re.MULTILINE)
    lock = json.loads((ROOT / "tests" / f"kafka-{oldest}.lock.json").read_text(encoding="utf-8"))
    assert lock["kafka_version"].startswith(f"{oldest}.")
    assert f"--kafka-version {oldest} " in (ROOT / "Makefile").read_text(encoding="utf-8")


def _problem(subject: str) -> str | None:
    first = subject.partition(" ")[0]
    if len(subject) > _MOST_CHARACTERS:
        return f"has {len(subject)} characters, not at most {_MOST_CHARACTERS}"
    if subject.endswith(".") or not first[:1].isupper() or " " not in subject:
        return "is not a phrase that begins with a capital letter and ends without a full stop"
    if first not in _IMPERATIVE and _NOT_IMPERATIVE.fullmatch(first):
        return "is not imperative"
    return None


@pytest.mark.parametrize(
    ("subject", "accepted"),
    [
        ("Add a test", True),
        ("Process records in order", True),
        ("Focus on one thing", True),
        ("Merge branches with one parent", True),
        ("Added a test", False),
        ("Adds a test", False),
        ("Adding a test", False),
        ("add a test", False),
        ("Add a test.", False),
        ("x", False),
        (f"Add {'x' * 69}", False),
    ],
)
def test_the_rule_for_subjects_accepts_imperatives_only(subject: str, accepted: bool) -> None:
    """A rule that accepts everything checks nothing."""
    assert (_problem(subject) is None) == accepted


def test_commit_subjects_are_imperative_and_short() -> None:
    """The history is read one subject a line, also in a year."""
    newest = _git("log", "-1", "--format=%s") or pytest.skip("not a clone")
    known = _git("merge-base", "--is-ancestor", _FIRST_CHECKED, "HEAD") is not None
    subjects = (_git("log", "--format=%s", f"{_FIRST_CHECKED}..HEAD") or "") if known else newest
    assert [(subject, problem) for subject in subjects.splitlines() if (problem := _problem(subject))] == []


def _git(*arguments: str) -> str | None:
    """The output; None if there is no history, no git, or the command says no."""
    try:
        done = subprocess.run(
            ["/usr/bin/env", "git", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
