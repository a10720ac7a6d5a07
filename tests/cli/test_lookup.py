"""MODULE:APP: whatever is wrong with it is said in the user's own terms."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli.lookup import find_app, group_of, journaled_tasks
from pipeline.core.names import GroupId, TaskChoice, TaskId
from pipeline.errors import ConfigError, InputError
from pipeline.testing.memory_clients import MemoryCluster
from tests.cli.conftest import Run
from tests.support.runtime.fleet import Fleet

APP = "from pipeline import App\napp = App('delays')\nother = App('other')\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The working directory of a command, within this process; what was imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def _error(pipeline: Run, target: str) -> str:
    return pipeline("table", "show", "totals", "--app", target, code=1).stderr


def test_a_syntax_error_is_one_line_with_its_place(pipeline: Run, tmp_path: Path) -> None:
    """A traceback of forty frames would hide the user's mistake."""
    (tmp_path / "badsyntax.py").write_text(APP + "totals = app.table(\n")
    assert _error(pipeline, "badsyntax:app") == "error: badsyntax.py:4: '(' was never closed\n"


def test_an_error_of_the_module_shows_its_own_frames_only(pipeline: Run, tmp_path: Path) -> None:
    """Also where it imports another module of the user's, and where it ends in this package."""
    (tmp_path / "outer.py").write_text("import inner\n")
    (tmp_path / "inner.py").write_text("def fail():\n    return 1 / 0\n\nfail()\n")
    error = _error(pipeline, "outer:app")
    assert error.startswith("error: module outer cannot be imported:")
    assert [line.strip() for line in error.splitlines() if "File" in line] == [
        'File "outer.py", line 1, in <module>',
        'File "inner.py", line 4, in <module>',
        'File "inner.py", line 2, in fail',
    ]
    assert error.endswith("ZeroDivisionError: division by zero\n")
    (tmp_path / "called.py").write_text(APP + "app.topic('flights')\n")
    error = _error(pipeline, "called:app")
    assert 'File "called.py", line 4, in <module>' in error
    assert "importlib" not in error
    assert "pipeline/api/app.py" not in error


def test_a_declaration_that_is_refused_is_no_traceback(pipeline: Run, tmp_path: Path) -> None:
    """Its message says what is wrong and where."""
    (tmp_path / "delays.py").write_text(APP + "app.topic('a b', value=int)\n")
    assert _error(pipeline, "delays:app").startswith("error: topic a b: not a topic name")


@pytest.mark.parametrize(
    ("target", "error", "hint"),
    [
        ("delays", "'delays' is not MODULE:APP", "try delays:app. This command runs code of the app"),
        ("flight-delays", "'flight-delays' is not MODULE:APP", "write MODULE:APP, as in"),
        (":app", "':app' is not MODULE:APP", "write MODULE:APP, as in"),
        ("delays.py:app", "module delays.py does not exist", "write the module, not its file: delays:APP"),
        ("dleays:app", "module dleays does not exist", "did you mean delays:app?"),
        ("dleays:othr", "module dleays does not exist", "did you mean delays:other?"),
        ("payments:app", "module payments does not exist", "run the command in the directory"),
        ("delays:ap", "module delays has no ap", "try delays:app"),
        ("delays:othr", "module delays has no othr", "try delays:other"),
        ("delays:App", "delays:App is the class App, and not an App", "try delays:app"),
        ("delays:app.table", "delays:app.table is of type method, and not an App", "try delays:app"),
        ("empty:app", "module empty has no app", "module empty has no App"),
        (
            "needs:app",
            "module needs imports no_such_module, which is not installed",
            "install it in the environment of this",
        ),
    ],
)
def test_a_mistyped_target_is_answered_with_the_next_thing_to_try(
    tmp_path: Path, here: None, target: str, error: str, hint: str
) -> None:
    """It is the first argument that everybody types."""
    (tmp_path / "delays.py").write_text(APP)
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "needs.py").write_text("import no_such_module\n")
    with pytest.raises(ConfigError) as refused:
        find_app(target)
    assert error in refused.value.message
    assert hint in (refused.value.hint or "")


def test_an_installed_module_of_that_name_is_named(tmp_path: Path, here: None) -> None:
    """The library of the same name is on the Python path before the working directory."""
    (tmp_path / "clicks.py").write_text(APP)
    (tmp_path / "unlike.py").write_text(APP)
    with pytest.raises(ConfigError) as refused:
        find_app("click:app")
    assert refused.value.message.startswith("module click has no app; it was imported from /")
    assert refused.value.message.endswith("/click/__init__.py")
    assert refused.value.hint == "module click has no App. Did you mean clicks:app?"


def test_a_file_that_an_installed_module_hides_is_named(tmp_path: Path, here: None) -> None:
    """The user looks at a file that is never imported."""
    (tmp_path / "click.py").write_text(APP)
    with pytest.raises(ConfigError) as refused:
        find_app("click:app")
    assert refused.value.message.endswith("/click/__init__.py, which hides ./click.py: rename ./click.py")
    assert refused.value.hint == "module click has no App"


def test_a_module_of_the_directory_is_named_by_its_file(tmp_path: Path, here: None) -> None:
    """It does not hide itself."""
    (tmp_path / "nothing.py").write_text("")
    with pytest.raises(ConfigError) as refused:
        find_app("nothing:app")
    assert refused.value.message == "module nothing has no app; it was imported from nothing.py"


def test_a_group_is_taken_from_the_task_unless_it_is_given() -> None:
    """`--task main/1` is what reports print; the command must not read another group's task 1."""
    rows = TaskChoice(1, "rows")
    assert group_of(None, None) is None
    assert group_of(None, TaskChoice(1)) is None
    assert group_of(None, rows) == group_of("rows", rows) == group_of("rows", TaskChoice(1)) == "rows"
    with pytest.raises(InputError, match="task rows/1 is not a task of group main"):
        group_of("main", rows)


def test_a_journaled_task_is_found_by_either_form() -> None:
    """Both name the same task of the group."""
    cluster, group = MemoryCluster(Fleet.at_rest("a").broker), GroupId("sums", "main")
    assert len(journaled_tasks(cluster, group, None)) == 4
    assert journaled_tasks(cluster, group, TaskChoice(3)) == [TaskId("sums", "main", 3)]
    assert journaled_tasks(cluster, group, TaskChoice(3, "main")) == [TaskId("sums", "main", 3)]
    with pytest.raises(InputError, match="group sums/main has no task 4"):
        journaled_tasks(cluster, group, TaskChoice(4))
