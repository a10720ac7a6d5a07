"""Rehearsals of runbooks: shell scripts with the commands of the page at the places that they name.

A line `@ Steps 2` of a script is replaced by the second block of commands in the section Steps of the page, without its
indentation. So a command that is wrong on the page fails in the test. What follows the number changes how it is run:

- `@ Steps 2 finds problems`: each command may end with exit code 1, as commands do that report a problem;
- `@ Steps 2, 1:0 is 1:4`: the page's example of a place or a path is replaced by that of the test.

Commands that ask for a confirmation get `--yes`, because there is no terminal. Workers run in the background and write
to `worker.log`, because a reader of the page has a terminal for each.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.broker.ports import choose_ports
from tests.support.pages import ROOT, blocks_in, sections
from tests.support.walkthrough import Page, page_of, read_page

__all__ = ["BEGIN", "MORE", "Rehearsal", "end_processes_in", "places_of", "rehearse"]

# What every rehearsal begins with: the README's first program has processed its records and was stopped.
BEGIN = """
pipeline topics apply
cat > flights.csv <<'CSV'
carrier,dep_delay
AA,12
UA,-3
AA,NA
B6,47
AA,5
CSV
pipeline produce flights flights.csv --key carrier --null NA
pipeline worker delays:app & FIRST=$!
pipeline consume carrier-delays --follow --max 5
kill $FIRST
wait $FIRST
"""
# More flights, for every task: some drills wait for a commit or a checkpoint of each.
MORE = """
echo carrier,dep_delay > more.csv
for each in $(seq 500); do for key in {A..P}; do echo "$key$key,1"; done; done >> more.csv
"""
# `live` and `idle`: all tasks of an app are live, and they have no lag. `logged`: a worker has logged it. `ended`: the
# exit code of a process. `process_of`: the process of a worker, also if a drill has started it.
_PRELUDE = """
live() { until pipeline status "${1:-flight-delays}" | grep -q "4 of 4 tasks live"; do sleep 1; done; }
idle() { until pipeline status "${1:-flight-delays}" | grep -q "4 of 4 tasks live, lag 0"; do sleep 1; done; }
logged() { until grep -qs -- "$1" worker.log .pipeline/drills/worker-*.log; do sleep 0.2; done; }
ended() { local code=0; wait "$2" || code=$?; echo "exit code $code"; [ $code = "$1" ]; }
process_of() {
    local each
    for each in $(pgrep -f "^[^ ]*python[^ ]* [^ ]*pipeline worker .*--worker-id $1( |\\$)"); do
        if [ "$(readlink "/proc/$each/cwd")" = "$PWD" ]; then echo "$each"; fi
    done
}
touch worker.log
"""
_TOPIC = "name: {}\npartitions: 4\nowner: me\nkey: a carrier, text\nvalue: an object\n"
_PLACE = re.compile(r"^@ (\w+ \d+)( finds problems)?(?:, (.+))?$", re.MULTILINE)
_WORKER = re.compile(
    r"^((?:[A-Z_]+=\S+ )*pipeline worker [^&|\n]*?)(?: 2> worker\.log)?(?: & (\w+)=\$!)?$", re.MULTILINE
)
_ASKS = re.compile(
    r"^(pipeline (?:reset|journal forget|topics set) (?!.*--(?:dry-run|yes)\b).*)$", re.MULTILINE
)
_PORT = re.compile(r"\b808(\d)\b")
_VARIES = re.compile(r"\b\d+(\.\d+)? s\b|\b\d\d:\d\d:\d\d\b")


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How a runbook is rehearsed.

    Attributes:
        script: The commands after `begin`, with places of the page.
        says: What both the page and the output contain, without regard to white space and durations.
        left_out: The places of the page whose commands are not run, with the reason.
        settings: The file `pipeline.toml`.
        begin: The commands before the script.
        timeout_s: The time for all commands.
    """

    script: str
    says: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    settings: str = ""
    begin: str = BEGIN
    timeout_s: float = 160

    @property
    def places(self) -> set[str]:
        """The places of the page whose commands are run."""
        return {place[1] for place in _PLACE.finditer(_dedented(self.script))}


def places_of(name: str) -> set[str]:
    """The places of all commands in a runbook: `Steps 1`."""
    return set(_commands(_text(name)))


def rehearse(name: str, rehearsal: Rehearsal, kafka: str, directory: Path) -> str:
    """Run a rehearsal in an empty directory, and return its output with the log of the workers.

    Raises:
        AssertionError: A command failed, or the page or the output does not contain something of `says`.
    """
    text = _text(name)
    assert [said for said in rehearsal.says if _plain(said) not in _plain(text)] == []
    files = {
        "delays.py": read_page(ROOT / "README.md").files["delays.py"],
        "topics/flights.yaml": _TOPIC.format("flights"),
        "topics/carrier-delays.yaml": _TOPIC.format("carrier-delays"),
        "pipeline.toml": rehearsal.settings.replace("DIRECTORY", str(directory)),
        **page_of(text[text.index("\n## Steps\n") :]).files,
    }
    page = Page(files, _PRELUDE + _script(text, rehearsal.begin + rehearsal.script), [])
    page.save(directory)
    try:
        output = page.run(directory, kafka, rehearsal.timeout_s)
    except AssertionError as error:
        raise AssertionError(f"{error}\n-- logs of workers\n{_logs(directory)[-4_000:]}") from error
    finally:
        end_processes_in(directory)
    # Lines of `set -x` repeat the commands, and so what they search for.
    output = re.sub(r"^\++ .*\n", "", output, flags=re.MULTILINE) + _logs(directory)
    assert [said for said in rehearsal.says if _plain(said) not in _plain(output)] == [], output[-8_000:]
    return output


def end_processes_in(directory: Path) -> None:
    """Kill processes that still run in a directory: workers that a drill has started, in sessions of their own."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink() == directory and int(process.name) != os.getpid():
                os.kill(int(process.name), signal.SIGKILL)


def _script(text: str, script: str) -> str:
    commands = _commands(text)

    def insert(place: re.Match[str]) -> str:
        body = _ASKS.sub(r"\1 --yes", commands[place[1]])
        if place[3]:
            example, _, given = place[3].partition(" is ")
            assert example in body, f"{place[1]} has no {example}"
            body = body.replace(example, given)
        return re.sub(r"$", " || [ $? = 1 ]", body, flags=re.MULTILINE) if place[2] else body

    ports = dict(zip("0123", choose_ports(4), strict=True))
    with_page = _PLACE.sub(insert, _dedented(script))
    with_workers = _WORKER.sub(lambda each: f"{each[1]} 2>> worker.log & {each[2] or 'WORKER'}=$!", with_page)
    return _PORT.sub(lambda port: str(ports[port[1]]), with_workers)


def _commands(text: str) -> dict[str, str]:
    """The blocks of commands of a page by their places, without their indentation."""
    return {
        f"{section} {number}": block.rstrip("\n")
        for section, part in sections(text).items()
        for number, block in enumerate(blocks_in(part, "sh"), 1)
    }


def _dedented(script: str) -> str:
    return re.sub(r"^ +", "", script, flags=re.MULTILINE)


def _text(name: str) -> str:
    return (ROOT / "runbooks" / f"{name}.md").read_text(encoding="utf-8")


def _plain(text: str) -> str:
    return " ".join(_VARIES.sub("N s", text).split())


def _logs(directory: Path) -> str:
    """The logs of the workers, of those that a drill has started, too."""
    logs = [directory / "worker.log", *(directory / ".pipeline" / "drills").glob("worker-*.log")]
    return "".join(log.read_text(encoding="utf-8", errors="replace") for log in logs if log.exists())
