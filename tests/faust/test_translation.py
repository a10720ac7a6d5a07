"""How a `faust.App` becomes an app of this engine, and what is refused by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import faust
import pytest

from pipeline.app import declared_app
from pipeline.cli.lookup import find_app
from pipeline.errors import ConfigError
from pipeline.faust import is_faust_app
from pipeline.faust.error_policy import faust_error_policy
from pipeline.testing import TestDriver
from tests.faust.test_agents import new_app


def test_an_app_of_this_package_does_not_import_faust() -> None:
    """It takes half a second, and the extra may be missing."""
    code = (
        "import sys\nfrom pipeline import App\nfrom pipeline.app import declared_app\nfrom pipeline.testing import "
        "TestDriver\nTestDriver(App('own'))\nsys.exit('faust' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_commands_find_a_faust_app_by_module_and_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pipeline worker module:app` is the same for both kinds of apps."""
    (tmp_path / "shop_app.py").write_text('import faust\n\napp = faust.App("shop.orders")\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_app("shop_app:app").name == "shop-orders"
    with pytest.raises(ConfigError, match="has no ap") as raised:
        find_app("shop_app:ap")
    assert raised.value.hint == "try shop_app:app"


def test_topics_and_their_partitions_are_created_as_declared() -> None:
    """Faust declares its topics; a start on an empty cluster must work the same way."""
    app = new_app(topic_partitions=6)
    source = app.topic("source", partitions=3, retention=60, config={"max.message.bytes": 5000})
    table = app.topic("compacted", compacting=True)
    app.Table("rows")

    @app.agent(source)
    async def agent(stream: Any) -> None:
        async for _ in stream:
            await table.send(value=1)

    driver = TestDriver(app)
    for name in ("source", "compacted"):
        driver.broker.delete(name)
    driver.run()
    made = {name: driver.broker.describe(name) for name in ("source", "compacted")}
    assert {name: info.partitions for name, info in made.items() if info} == {"source": 3, "compacted": 6}
    assert {
        name: {key: info.config[key] for key in info.overridden} for name, info in made.items() if info
    } == {
        "source": {"retention.ms": "60000", "max.message.bytes": "5000"},
        "compacted": {"cleanup.policy": "compact"},
    }


def test_an_app_is_translated_once() -> None:
    """Its tables and its producer are replaced, which cannot be done twice."""
    app = new_app()
    assert declared_app(app) is declared_app(app)


def test_autodiscover_imports_the_modules_of_the_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents are often in other modules than the app."""
    package = tmp_path / "store_front"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "main.py").write_text(
        'import faust\n\napp = faust.App("shop", autodiscover=["store_front.agents"], origin="store_front")\n'
    )
    (package / "agents.py").write_text(
        "from store_front.main import app\n\n\n@app.agent(app.topic('orders'))\nasync def orders(stream):\n"
        "    async for _ in stream:\n        pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = find_app("store_front.main:app")
    assert [topic.name for topic in found.main.inputs] == ["orders"]


class _Replacing(faust.App):
    def agent(self, *args: Any, **kwargs: Any) -> Any:
        return super().agent(*args, **kwargs)


class _Adding(faust.App):
    def shop(self) -> str:
        return "shop"


def test_a_subclass_that_replaces_parts_of_an_app_is_refused() -> None:
    """The engine would not call them, and nothing would say so."""
    with pytest.raises(ConfigError, match=r"_Replacing replaces agent of faust.App"):
        declared_app(_Replacing("replacing"))
    assert declared_app(_Adding("adding")).name == "adding"


def test_what_is_not_carried_over_is_refused_at_the_start() -> None:
    """Each with its name, before any record is processed."""

    def refused(declare: Any) -> str:
        app = new_app()
        declare(app)
        with pytest.raises(ConfigError) as raised:
            declared_app(app)
        return raised.value.message

    def agent(app: Any, channel: Any) -> None:
        @app.agent(channel, name="reader")
        async def reader(stream: Any) -> None: ...

    assert "table all is a GlobalTable" in refused(lambda app: app.GlobalTable("all"))
    assert "agent reader reads the channel" in refused(lambda app: agent(app, app.channel()))
    assert "agent reader reads the topics that match 'a.*'" in refused(
        lambda app: agent(app, app.topic(pattern="a.*"))
    )
    with pytest.warns(faust.exceptions.SecurityWarning):
        assert "topic t has the serializer pickle" in refused(
            lambda app: agent(app, app.topic("t", value_serializer="pickle"))
        )
    assert "only json is carried over" in refused(lambda app: app.SetTable("s", value_type=bytes))


def test_the_error_policy_takes_a_faust_app() -> None:
    """An App of this package declares its policy for each handler."""
    assert not is_faust_app(object())
    with pytest.raises(ConfigError, match="faust_error_policy takes a faust"):
        faust_error_policy(object(), on_error="skip")
