"""The systems that are compared: the command line of each, and how much of a job it is given."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.peers.environments import BUILD, ROOT, Environment
from benchmarks.peers.programs.plan import VARIABLE, Plan

__all__ = ["SYSTEMS", "System", "command_of", "environment_for"]


@dataclass(frozen=True, slots=True)
class System:
    """`job`: its own job in place of the case's. `slow`: it is measured on its first few thousand records.

    `prompt_ms`: its commit interval where latency counts; 0 for its default. `tables`: those whose changelog topics
    must exist when it starts. `store_cache`: whether the stores of Kafka Streams have a cache. `program`: another
    module of `programs` than the environment's own. `guarantee`: of faust-streaming, for a program that does not
    select it.
    """

    title: str
    environment: str
    threads: int = 1
    processes: int = 1
    store_cache: bool = True
    job: str = ""
    slow: bool = False
    prompt_ms: int = 0
    tables: tuple[str, ...] = ()
    program: str = ""
    guarantee: str = ""


SYSTEMS: Mapping[str, System] = {
    "ours": System("exactly-once-pipeline", "ours"),
    "ours-2": System("exactly-once-pipeline, two processes", "ours", processes=2),
    "ours-no-dedup": System("exactly-once-pipeline without dedup", "ours", job="sum"),
    "ours-producer": System("`Producer` of exactly-once-pipeline", "ours", job="ours-producer"),
    "streams-1": System("Kafka Streams, one thread", "streams"),
    "streams-no-cache": System("Kafka Streams, one thread, no store cache", "streams", store_cache=False),
    "streams-2": System("Kafka Streams, two threads", "streams", threads=2),
    "quix": System("Quix Streams", "quix", prompt_ms=100),
    "faust": System("faust-streaming", "faust", slow=True, prompt_ms=100, tables=("sums", "ids", "accounts")),
    "ours-faust-app": System("exactly-once-pipeline", "ours", program="faust_app"),
    "faust-app": System(
        "faust-streaming, at least once",
        "faust",
        slow=True,
        tables=("sums",),
        program="faust_app",
        guarantee="at_least_once",
    ),
    "faust-app-once": System(
        "faust-streaming, exactly once",
        "faust",
        slow=True,
        tables=("sums",),
        program="faust_app",
        guarantee="exactly_once",
    ),
    "raw": System("raw client: consume and produce", "raw", job="copy"),
    "raw-consume": System("raw client: consume only", "raw", job="consume"),
    "raw-produce": System("raw client: produce only", "raw", job="produce"),
    "raw-transactions": System("raw client: transactional loop", "raw", job="transactions"),
}
_MODULES = {"ours": "ours", "quix": "quix", "faust": "faust_streams", "raw": "raw"}


def command_of(system: System, environment: Environment, plan: Plan) -> list[str]:
    """The command line that runs the plan."""
    if system.environment == "streams":
        return [*environment.command, "Streams"]
    if system.job == "ours-producer":
        return [*environment.command, "-m", "benchmarks.peers.programs.ours_producer"]
    module = f"benchmarks.peers.programs.{system.program or _MODULES[system.environment]}"
    if system.environment == "ours":
        options = {
            "--kafka": plan.servers,
            "--state-dir": plan.state_dir,
            "--worker-id": plan.worker,
            "--topics-dir": "",
        }
        if system.processes > 1:
            options["--processes"] = str(system.processes)
        if plan.commit_ms:
            options["--commit-interval-ms"] = str(plan.commit_ms)
        words = [word for option in options.items() for word in option]
        return [
            *environment.command,
            "-m",
            "pipeline",
            "worker",
            f"{module}:app",
            *words,
        ]
    return [*environment.command, "-m", module]


def environment_for(plan: Plan, system: System) -> dict[str, str]:
    """The environment variables of the process. Its first start compiles its modules, as an installation does."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    compiled = {"PYTHONPYCACHEPREFIX": str(BUILD / "compiled")}
    guarantee = {"PROCESSING_GUARANTEE": system.guarantee} if system.guarantee else {}
    return {**kept, **compiled, **guarantee, "PYTHONPATH": str(ROOT), VARIABLE: plan.encode()}
