"""Every command has the role whose ACLs it needs, and a denied command names it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from pipeline.cli import main
from pipeline.cli.acls import ROLES, grant_hint, role_of
from pipeline.core.permissions import Role
from pipeline.errors import DeniedError


def _commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[str]:
    below = getattr(command, "commands", None)
    if below is None:
        yield " ".join(words)
    else:
        for name, each in below.items():
            yield from _commands(each, (*words, name))


def test_every_command_has_a_role_or_needs_none() -> None:
    """A new command that talks to Kafka would work in every test and fail on the first secured cluster."""
    assert sorted(ROLES) == sorted(_commands(get_command(main.assemble())))


def test_every_role_but_that_of_services_is_of_a_command() -> None:
    """A role that no command needs is one that an administrator grants for nothing."""
    assert {role for role in ROLES.values() if role} | {Role.PRODUCER} == set(Role)


@pytest.mark.parametrize(
    ("words", "role", "named"),
    [
        (["status", "orders"], Role.STATUS, "pipeline acls MODULE:APP --role status`"),
        (["worker", "shop.app:app"], Role.WORKER, "pipeline acls shop.app:app --role worker`"),
        (["deadletters", "show", "shop:app", "0:12"], Role.REPLAY, "pipeline acls shop:app --role replay`"),
        (["--version"], None, "pipeline acls MODULE:APP --role ROLE`"),
    ],
)
def test_a_denied_command_names_its_role(words: list[str], role: Role | None, named: str) -> None:
    """An operator should copy the next step, not look for it."""
    assert role_of(words) is role
    assert named in grant_hint(words)


def test_a_denied_command_ends_with_1_and_the_next_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a command does when Kafka denies a request, it ends in one place."""

    def denied(*_: object, **__: object) -> Any:
        raise DeniedError("topic orders: Kafka denies this: it needs Read on topic orders")

    monkeypatch.setattr(main, "assemble", lambda *_: denied)
    monkeypatch.setattr(
        main, "end_soon", lambda _: None
    )  # it would end this process if other tests left threads
    monkeypatch.setattr(sys, "argv", ["pipeline", "consume", "orders"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 1
    assert "it needs Read on topic orders\n  -> grant this ACL" in (shown := capsys.readouterr().err)
    assert "`pipeline acls MODULE:APP --role inspect`" in shown
