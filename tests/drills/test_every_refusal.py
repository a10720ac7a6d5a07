"""Each refusal of a drill has a test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.drills import refusals as plugin
from tests.support.drills.refusals import REACHED, reached_in, refusals

_HERE = Path(__file__)
_FAST = "not kafka and not kills and not browser and not containers"


def test_every_refusal_is_reached_by_a_test(tmp_path: Path) -> None:
    """A refusal that no test reaches may never be raised, or be raised for a drill that is safe."""
    reached = tmp_path / "reached"
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", plugin.__name__),
            *("-m", _FAST, "--ignore", str(_HERE), str(_HERE.parent)),
        ],
        cwd=_HERE.parents[2],
        env={**os.environ, REACHED: str(reached)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:]
    covered = reached_in(reached)
    assert [str(each) for each in refusals() if each not in covered] == []


def test_a_drill_that_is_refused_says_what_to_do_next() -> None:
    """An operator must be able to meet the precondition, or to choose another drill."""
    assert [str(each) for each in refusals() if "RefusedDrillError" in each.text and not each.hint] == []


def test_the_refusals_of_all_drills_are_in_the_list() -> None:
    """A search that finds nothing would need no test."""
    found = [str(each) for each in refusals()]
    assert len(found) > 50
    assert any(
        "worker_drills.py" in each and "RefusedDrillError: 'command-unknown'" in each for each in found
    )
    assert any("catalog.py" in each and "InputError" in each for each in found)
    assert any("containers.py" in each and "EngineError" in each for each in found)
