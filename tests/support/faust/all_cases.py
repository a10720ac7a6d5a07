"""All cases, by the name of their application."""

from __future__ import annotations

from tests.support.faust.cases import Case
from tests.support.faust.counting_cases import COUNTING_CASES
from tests.support.faust.stream_cases import STREAM_CASES

__all__ = ["CASES"]

CASES: dict[str, Case] = {case.app: case for case in (*COUNTING_CASES, *STREAM_CASES)}
