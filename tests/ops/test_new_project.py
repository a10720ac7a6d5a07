"""`pipeline new`: which names it accepts, what it writes, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import assemble
from pipeline.config import load_settings
from pipeline.errors import InputError
from pipeline.ops.new_project import check_project_name, create_project

FILES = {
    ".gitignore",
    "app.py",
    "orders.csv",
    "pipeline.toml",
    "test_app.py",
    "topics/my-shop-orders.yaml",
    "topics/my-shop-totals.yaml",
}


def _tree(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_a_project_has_its_name_wherever_a_name_is_needed(tmp_path: Path) -> None:
    """Two projects on one Kafka must not share topics, and no placeholder may be left."""
    assert set(create_project("my-shop", tmp_path)) == FILES
    assert _tree(tmp_path) == {f"my-shop/{name}" for name in FILES}
    texts = {name: (tmp_path / "my-shop" / name).read_text() for name in FILES}
    assert 'App("my-shop")' in texts["app.py"]
    assert texts["topics/my-shop-orders.yaml"].startswith("name: my-shop-orders\n")
    assert "@" not in "".join(texts.values()).replace("@app.handler", "")


@pytest.mark.parametrize("name", ["a", "shop", "my-shop-2", "a" * 40])
def test_valid_names_are_accepted(name: str) -> None:
    """A rule that is too strict annoys at the first command."""
    check_project_name(name)


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("My Shop", "my-shop"),
        ("my_shop", "my-shop"),
        ("2nd", "nd"),
        ("../shop", "shop"),
        ("/srv/shop", "shop"),
        ("a" * 41, "a" * 40),
        ("", "my-app"),
        ("-", "my-app"),
        ("łódź.", "d"),
        ("pipeline", "my-pipeline"),
        ("Pipeline", "my-app"),
    ],
)
def test_an_invalid_name_is_answered_with_a_valid_one(name: str, suggested: str, tmp_path: Path) -> None:
    """The name becomes part of topics and of transactional ids, which cannot be renamed later."""
    with pytest.raises(InputError) as caught:
        create_project(name, tmp_path)
    assert caught.value.hint == f"for example: pipeline new {suggested}"
    check_project_name(suggested)
    assert _tree(tmp_path) == set()


def test_an_empty_directory_is_filled(tmp_path: Path) -> None:
    """People create the directory first, for example with git."""
    (tmp_path / "my-shop").mkdir()
    create_project("my-shop", tmp_path)
    assert _tree(tmp_path / "my-shop") == FILES


def test_a_directory_with_files_is_left_alone(tmp_path: Path) -> None:
    """It may be a project of the same name, with work in it."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "app.py").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        create_project("shop", tmp_path)
    assert _tree(tmp_path) == {"shop/app.py"}
    assert (tmp_path / "shop" / "app.py").read_text() == "mine"


def test_a_file_or_a_link_of_that_name_is_left_alone(tmp_path: Path) -> None:
    """A link may lead to a directory that belongs to something else."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("file", "link"):
        with pytest.raises(InputError, match="exists and is not a directory"):
            create_project(name, tmp_path)
    assert _tree(tmp_path) == {"file"}


def test_a_failed_write_leaves_no_part_of_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a full disk the command can be repeated: the directory does not exist."""
    write, written = Path.write_text, 0

    def full_disk(path: Path, text: str, encoding: str | None = None) -> int:
        nonlocal written
        written += 1
        if written == 3:
            raise OSError(28, "No space left on device")
        return write(path, text, encoding=encoding)

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(InputError, match="No space left on device"):
        create_project("shop", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("servers", ["kafka-1:9092", ""])
def test_a_variable_that_overrides_the_settings_file_is_named(
    servers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the printed commands create topics in a Kafka that the file does not name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIPELINE_KAFKA", servers)
    done = CliRunner().invoke(assemble(), ["new", "shop"])
    assert (f"PIPELINE_KAFKA is set: commands use the Kafka at {servers}" in done.stderr) == bool(servers)
    monkeypatch.chdir(tmp_path / "shop")
    assert load_settings().kafka.bootstrap_servers == (servers or "127.0.0.1:9092")
