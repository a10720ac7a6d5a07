"""`pipeline faust check`: what an application of real Faust uses, found without running it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from pipeline.cli.main import assemble
from pipeline.errors import ConfigError
from pipeline.faust.check import refuse, uses_of
from pipeline.faust.features import FEATURES, SETTINGS, Feature, Outcome, markdown, setting
from pipeline.faust.uses import Use, feature_of
from tests.support.pages import ROOT

HEAD = """
import faust

class Order(faust.Record, serializer="json"):
    customer: str
    cents: int

app = faust.App("revenue", broker="kafka://localhost:9092")
orders = app.topic("orders", key_type=str, value_type=Order)
other = app.topic("other")
totals = app.Table("totals", default=int)

@app.agent(other)
async def listen(stream):
    async for value in stream:
        pass
"""

Check = Callable[[str], list[Use]]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Check]:
    """Write a module, import it, and return the uses of its application."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def checked(source: str) -> list[Use]:
        (tmp_path / "shop.py").write_text(HEAD + source)
        importlib.invalidate_caches()
        return uses_of(importlib.import_module("shop").app)

    yield checked
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def _agent(body: str) -> str:
    return f"@app.agent(orders)\nasync def work(stream):\n    async for order in stream:\n        {body}\n"


# One line of an application for each feature that is found by what the application contains.
EXAMPLES = {
    "agent": "",
    "agent.own_topic": "@app.agent()\nasync def work(stream):\n    async for v in stream: pass",
    "agent.topics": "@app.agent(app.topic('a', 'b'))\nasync def work(stream):\n    async for v in stream: pass",
    "agent.pattern": "@app.agent(app.topic(pattern='a.*'))\nasync def work(stream):\n    async for v in stream: pass",
    "agent.channel": "@app.agent(app.channel())\nasync def work(stream):\n    async for v in stream: pass",
    "agent.yield": _agent("yield order"),
    "agent.sink": "@app.agent(orders, sink=[other])\nasync def work(stream):\n    async for v in stream: yield v",
    "agent.concurrency": "@app.agent(orders, concurrency=3)\nasync def work(stream):\n    async for v in stream: pass",
    "agent.isolated": (
        "@app.agent(orders, isolated_partitions=True)\nasync def work(stream):\n    async for v in stream: pass"
    ),
    "agent.supervisor": (
        "import mode\n@app.agent(orders, supervisor_strategy=mode.OneForAllSupervisor)\n"
        "async def work(stream):\n    async for v in stream: pass"
    ),
    "agent.cast": _agent("await listen.cast(1)"),
    "agent.ask": "@app.task\nasync def t():\n    await listen.ask(1)",
    "agent.ask_inside": _agent("await listen.ask(1)"),
    "agent.test_context": "def test():\n    return listen.test_context()",
    "stream": "",
    "stream.events": "@app.agent(orders)\nasync def work(stream):\n    async for e in stream.events(): pass",
    "stream.items": "@app.agent(orders)\nasync def work(stream):\n    async for k, v in stream.items(): pass",
    "stream.take": "@app.agent(orders)\nasync def work(stream):\n    async for b in stream.take(9, within=1): pass",
    "stream.filter": "@app.agent(orders)\nasync def work(stream):\n    async for v in stream.filter(bool): pass",
    "stream.group_by": (
        "@app.agent(orders)\nasync def work(stream):\n    async for v in stream.group_by(Order.customer): pass"
    ),
    "stream.through": "@app.agent(orders)\nasync def work(stream):\n    async for v in stream.through(other): pass",
    "stream.echo": "@app.agent(orders)\nasync def work(stream):\n    async for v in stream.echo(other): pass",
    "stream.enumerate": "@app.agent(orders)\nasync def work(stream):\n    async for n, v in stream.enumerate(): pass",
    "stream.ack": "@app.agent(orders)\nasync def work(stream):\n    async for e in stream.events():\n        e.ack()",
    "stream.combine": "@app.agent(orders)\nasync def work(stream):\n    stream & stream",
    "stream.unknown": "@app.agent(orders)\nasync def work(stream):\n    await stream.throw(ValueError())",
    "stream.free": "@app.task\nasync def t():\n    async for v in orders.stream(): pass",
    "event.forward": (
        "@app.agent(orders)\nasync def work(stream):\n    async for e in stream.events():\n"
        "        await e.forward(other)"
    ),
    "topic": "",
    "topic.send": _agent("await other.send(value=1)"),
    "topic.send_options": _agent("await other.send(value=1, partition=3)"),
    "topic.pickle": "bad = app.topic('bad', value_serializer='raw|pickle')",
    "record": "",
    "topic.declare": "kept = app.topic('kept', retention=3600)",
    "table": "",
    "table.items": _agent("dict(totals.items())"),
    "table.set": "tags = app.SetTable('tags')",
    "table.set_manager": "tags = app.SetTable('tags', start_manager=True)",
    "table.global": "prices = app.GlobalTable('prices')",
    "table.store": "prices = app.Table('prices', store='memory://')",
    "table.partitioner": "prices = app.Table('prices', use_partitioner=True)",
    "table.on_recover": "@totals.on_recover\nasync def recovered(): pass",
    "window": "hourly = app.Table('hourly', default=int).tumbling(3600)",
    "window.relative": "hourly = app.Table('hourly', default=int).tumbling(3600).relative_to_now()",
    "window.key_index": "hourly = app.Table('hourly', default=int).hopping(3600, 60, key_index=True)",
    "window.expires": "hourly = app.Table('hourly', default=int).tumbling(3600, expires=7200)",
    "window.on_close": "hourly = app.Table('hourly', on_window_close=print).tumbling(3600)",
    "window.sliding": "near = app.Table('near').using_window(faust.windows.SlidingWindow(1, 1, 60))",
    "app.timer": "@app.timer(5)\nasync def tick(): pass",
    "app.task": "@app.task\nasync def begin(): pass",
    "app.leader": "@app.crontab('* * * * *', on_leader=True)\nasync def tick(): pass",
    "app.page": "@app.page('/x')\nasync def page(self, request): pass",
    "app.table_route": (
        "@app.page('/x/{c}')\n@app.table_route(table=totals, match_info='c')\nasync def page(self, request, c): pass"
    ),
    "app.command": "@app.command()\nasync def hello(self): pass",
    "app.signals": "@app.on_worker_init.connect\ndef begin(app, **kwargs): pass",
    "app.rebalance": "@app.on_partitions_assigned.connect\nasync def given(app, assigned, **kwargs): pass",
    "app.discover": "def more():\n    app.discover('shop')",
    "app.main": "if __name__ == '__main__':\n    app.main()",
    "app.service": "import mode\n@app.service\nclass Extra(mode.Service): pass",
    "app.worker": "async def run():\n    await app.start()",
    "app.web_server": "@app.web_server\nclass Server(faust.Service): pass",
    "app.monitor": "app.monitor = faust.Monitor()",
    "app.sensors": "class Own(faust.Monitor): pass\napp.monitor = Own()",
    "app.livecheck": "def live():\n    return app.LiveCheck()",
    "app.engine": _agent("await app.commit(['orders'])"),
    "app.unknown": "def odd():\n    return app.rebalancing_count",
}
TESTS = Path(__file__).parent  # whose modules have Faust's objects, too
# Not shown by a line: they describe what is the same, or need another application.
WITHOUT_EXAMPLE = {"event", "topic.serializer", "app.subclass"}


@pytest.mark.filterwarnings("ignore:The pickle codec")
@pytest.mark.parametrize("key", EXAMPLES)
def test_each_feature_is_found_where_it_is_used(check: Check, key: str) -> None:
    """A feature that the check does not find is one that a user loses without a word."""
    uses = [use for use in check(EXAMPLES[key]) if use.feature is feature_of(key)]
    found = [use for use in uses if use.place is None or not Path(use.place.file).is_relative_to(TESTS)]
    assert found
    assert all(use.place is not None and Path(use.place.file).name == "shop.py" for use in found)


def test_each_feature_of_the_table_has_an_example() -> None:
    """So a feature that is added has one."""
    known = {key for features in FEATURES.values() for key in features}
    assert known == EXAMPLES.keys() | WITHOUT_EXAMPLE


def test_a_program_that_starts_its_own_worker_is_not_refused(check: Check) -> None:
    """A module that is imported does not run its main function, and a start inside of a worker is an error anyway."""
    uses = check("def main():\n    faust.Worker(app, loglevel='WARN').execute_from_commandline()")
    assert [use.feature for use in uses if use.what.endswith("Worker")] == [feature_of("app.main")]


def test_an_app_with_nothing_special_is_not_refused(check: Check) -> None:
    """A false alarm would keep an application from moving that can."""
    assert [use for use in check("") if use.feature.outcome is Outcome.REFUSED] == []


@pytest.mark.parametrize(
    "source",
    [
        "def f(app):\n    return app.consumer",  # a parameter hides the application
        "class Consumer:\n    def __init__(self):\n        self.consumer = 1\nx = Consumer().consumer",
        "app.my_own = 3\ndef f():\n    return app.my_own",
        "def f(listen):\n    return listen.ask(1)",
        _agent("orders.items"),
    ],
)
def test_names_that_only_look_like_features_are_no_uses(check: Check, source: str) -> None:
    """Nothing is refused on a guess: an object is known, or it is no use of anything."""
    assert [use for use in check(source) if use.feature.outcome is Outcome.REFUSED] == []


def test_the_objects_of_another_application_are_no_uses(check: Check) -> None:
    """A process may import several applications."""
    other = "another = faust.App('another')\ntheirs = another.topic('theirs')\n"
    uses = check(other + "@another.task\nasync def t():\n    async for v in theirs.stream(): pass")
    assert [use for use in uses if use.feature.outcome is Outcome.REFUSED] == []


def test_a_subclass_that_replaces_a_part_of_the_engine_is_refused(check: Check) -> None:
    """Its method would never be called."""
    uses = check(
        "class Own(faust.App):\n"
        "    async def on_start(self): pass\n"
        "    def helper(self): pass\n"
        "app = Own('revenue-2')\n"
    )
    found = [use for use in uses if use.feature is feature_of("app.subclass")]
    assert [(use.what, use.place.line if use.place else 0) for use in found] == [
        ("Own.on_start", HEAD.count("\n") + 2)
    ]


def test_a_sensor_that_is_added_is_refused(check: Check) -> None:
    """Metrics of the user that stay at zero look as if nothing happened."""
    uses = check("app.sensors.add(faust.Sensor())\n")
    assert [use.what for use in uses if use.feature.outcome is Outcome.REFUSED] == ["Sensor"]


@pytest.mark.filterwarnings("ignore:Argument .num_standby_replicas.")
def test_settings_of_all_sources_are_found(check: Check) -> None:
    """A setting that is silently not used is a behaviour that is silently another one."""
    uses = check(
        "class Conf:\n    producer_partitioner = print\n"
        "app = faust.App('revenue-3', processing_guarantee='exactly_once', num_standby_replicas=2)\n"
        "app.config_from_object(Conf)\n"
        "app.conf.web_port = 8080\n"
    )
    assert {use.feature for use in uses} >= {
        setting(name)
        for name in ("producer_partitioner", "processing_guarantee", "table_standby_replicas", "web_port")
    }


def test_each_setting_of_faust_is_in_the_table() -> None:
    """Another release of Faust may have a setting that this one does not know: it is refused, so it is noticed here."""
    params = importlib.import_module("faust.types.settings.params")
    settings = importlib.import_module("faust.types.settings").Settings
    known = {name for name, value in vars(settings).items() if isinstance(value, params.Param)}
    assert known - {"MY_SETTING"} == SETTINGS.keys() - {"id"}
    assert setting("no_such_setting").outcome is Outcome.REFUSED


def test_values_of_settings_are_not_shown(check: Check) -> None:
    """A broker address or credentials may contain a password."""
    uses = check("app = faust.App('revenue-4', broker='kafka://user:secret@localhost')\n")
    assert not any("secret" in use.what for use in uses)


def test_problems_come_first(check: Check) -> None:
    """They are what the user must act on."""
    outcomes = [
        use.feature.outcome
        for use in check(EXAMPLES["table.global"] + "\n" + EXAMPLES["table.store"].replace("prices", "more"))
    ]
    assert outcomes == sorted(outcomes, key=list(Outcome).index)
    assert outcomes[0] is Outcome.REFUSED


def test_a_refusal_names_the_places_and_the_next_step(check: Check) -> None:
    """A worker refuses the application with the same words as the check."""
    check(EXAMPLES["table.global"])
    with pytest.raises(ConfigError) as caught:
        refuse(sys.modules["shop"].app)
    line = (HEAD + EXAMPLES["table.global"]).count("\n") + 1
    assert f"shop.py:{line}: table prices" in str(caught.value)
    assert caught.value.hint is not None
    assert "pipeline faust check" in caught.value.hint


def test_exit_codes_and_json_of_the_command(check: Check, tmp_path: Path) -> None:
    """Both are for scripts: a build can check an application before it moves."""
    (tmp_path / "shop.py").write_text(HEAD)
    run = CliRunner()
    fine = run.invoke(assemble("faust"), ["faust", "check", "shop:app"])
    assert fine.exit_code == 0, fine.output
    assert "shop:app can run with pipeline worker shop:app" in fine.output

    (tmp_path / "store.py").write_text(HEAD + EXAMPLES["table.global"])
    refused = run.invoke(assemble("faust"), ["faust", "check", "store:app", "--json"])
    assert refused.exit_code == 1, refused.output
    document: dict[str, Any] = msgspec.json.decode(refused.stdout)
    assert document["app"] == "revenue"
    assert document["refused"] == 1
    assert document["uses"][0]["use"] == "table prices"
    assert document["uses"][0]["hint"]


def test_an_object_that_is_no_faust_app_is_refused_by_name(check: Check, tmp_path: Path) -> None:
    """The word `faust` in the command is easily left in."""
    (tmp_path / "mine.py").write_text("from pipeline import App\nimport faust\napp = App('mine')\n")
    result = CliRunner().invoke(assemble("faust"), ["faust", "check", "mine:app"])
    assert isinstance(result.exception, ConfigError)
    assert "mine:app is of type" in str(result.exception)
    assert "not a faust.App" in str(result.exception)


def test_the_page_has_the_table_of_features() -> None:
    """The page and the check must not say different things."""
    features: list[Feature] = [each for area in FEATURES.values() for each in area.values()]
    assert all(f"| {each.name} |" in markdown() for each in features)
    page = (ROOT / "docs" / "coming-from" / "faust.md").read_text(encoding="utf-8")
    assert markdown() in page, f"replace the table of the page by:\n{markdown()}"
