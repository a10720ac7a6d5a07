"""The documents of an app under `/api/`, and the reports of its drills: `AppDocuments`.

A worker and `pipeline ui` serve the same documents. They are read from Kafka, on threads of their own, and shared by
all clients (`http/background.py`). `docs/reference/http.md` describes them.
"""

from __future__ import annotations

import hmac
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from http import HTTPStatus
from typing import Any, Protocol

from pipeline.api.app import DeclaredApp
from pipeline.config import HttpSettings
from pipeline.core.departures import process_age
from pipeline.core.names import TaskId
from pipeline.errors import InputError
from pipeline.http.application import Answer, Request, Route, failed, json_answer
from pipeline.http.background import Background
from pipeline.ops.overview.moves import NotesReader, grouped
from pipeline.ops.overview.task import TaskView
from pipeline.ops.overview.timeline import Timeline
from pipeline.ops.overview.topology import topology_of
from pipeline.ports import Clock, Cluster, JournalReader, Sources
from pipeline.runtime.commit.journal_reader import first_entry
from pipeline.runtime.status import AppStatus, TaskPhase, read_status, status_document
from pipeline.runtime.status.groups import task_ranges
from pipeline.runtime.status.reading import KnownCheckpoint

__all__ = ["AppDocuments", "DrillReports", "PageApp", "StatusClients"]

READ_WAIT_S = 8.0
WAITERS = 4  # of all reads together; the server has more threads
_KEPT_TASKS = 16  # documents of tasks that are kept
_MOVES = 60
_LINK_S = 600
_REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
)


class DrillReports(Protocol):
    """The reports of the drills that were run on this machine."""

    def listed(self, app: str) -> Sequence[dict[str, object]]:
        """What the page shows of the reports of an app, the newest first. Each has an `id`. Raises InputError."""
        ...

    def page(self, app: str, report: str) -> str | None:
        """A report as HTML; None if the app has no such report. Raises InputError."""
        ...


class StatusClients:
    """The Kafka clients of an HTTP port. Each is opened by the first request that needs it, and kept.

    They end with the process: to close a client may take as long as Kafka does not answer.

    Args:
        cluster: Opens a cluster that several threads may use. May raise UnreachableError, ConfigError.
        reader: Opens a reader that several threads may use. May raise ConfigError.
        sources: Opens sources of records.
    """

    def __init__(
        self,
        cluster: Callable[[], Cluster],
        reader: Callable[[], JournalReader],
        sources: Callable[[], Sources],
    ) -> None:
        self._open_cluster = cluster
        self._open_reader = reader
        self._open_sources = sources
        self._cluster_lock, self._reader_lock = threading.Lock(), threading.Lock()
        self._cluster: Cluster | None = None
        self._reader: JournalReader | None = None

    @property
    def cluster(self) -> Cluster:
        with self._cluster_lock:
            if self._cluster is None:
                self._cluster = self._open_cluster()
            return self._cluster

    @property
    def reader(self) -> JournalReader:
        with self._reader_lock:
            if self._reader is None:
                self._reader = self._open_reader()
            return self._reader

    @cached_property
    def sources(self) -> Sources:
        return self._open_sources()


@dataclass(frozen=True, slots=True)
class PageApp:
    """The app of a page.

    `declared`: None if only its name is known. `target`: what commands call it, MODULE:APP. `servers`: Kafka's
    addresses for commands; empty if they need none. `source`: the id of the worker that serves the page; empty for
    `pipeline ui`. `reports`: those of this machine; None if there are none to look for.
    """

    name: str
    declared: DeclaredApp | None
    target: str = "MODULE:APP"
    servers: str = ""
    source: str = ""
    reports: DrillReports | None = None

    @property
    def options(self) -> str:
        """What commands need besides the app."""
        return f" --kafka {self.servers}" if self.servers else ""


class AppDocuments:
    """Answers requests for documents.

    Args:
        app: The app.
        clients: For Kafka.
        settings: The token, which signs links to reports.
        clock: The clock.
    """

    def __init__(self, app: PageApp, clients: StatusClients, settings: HttpSettings, clock: Clock) -> None:
        self._app = app
        self._clients = clients
        self._settings = settings
        self._clock = clock
        self._waiters = threading.BoundedSemaphore(WAITERS)
        self._checkpoints: dict[TaskId, KnownCheckpoint] = {}
        self._table_names: dict[str, Sequence[str]] = {}
        self._notes = NotesReader(app.name, clients, clock)
        self._notes_lock = threading.Lock()
        self._history = Timeline(clients, clock.wall_ms)
        self._view = TaskView(app.name, app.declared, app.target, app.options, clients, clock)
        self._view_lock = threading.Lock()
        self.status = self._background("the status", self._read_status)
        self._ring = self._background("the ring", self._read_ring)
        self._timeline = self._background("the timeline", self._read_timeline)
        self._topology = self._background("the topology", self._read_topology)
        self._tasks: OrderedDict[tuple[str, ...], Background[dict[str, object]]] = OrderedDict()
        self._tasks_lock = threading.Lock()

    @property
    def routes(self) -> Mapping[str, Route]:
        return {
            "/api/status": Route(lambda _request: self._answer_status()),
            "/api/page": Route(lambda _request: self._answer_page()),
            "/api/ring": Route(lambda _request: _aged(self._ring)),
            "/api/timeline": Route(lambda _request: _aged(self._timeline)),
            "/api/topology": Route(lambda _request: _aged(self._topology)),
            "/api/task/": Route(self._answer_task),
            "/api/drills": Route(lambda _request: self._answer_drills()),
            # A link cannot have the header with the token, so it is signed. Without a token, the address protects it.
            "/drills/": Route(self._answer_report, open=bool(self._settings.token)),
        }

    def _background(self, what: str, read: Callable[[], Any]) -> Background[Any]:
        return Background(what, read, READ_WAIT_S, self._waiters, self._clock.monotonic_s)

    def _answer_page(self) -> Answer:
        app = self._app
        return json_answer(
            {"app": app.name, "target": app.target, "options": app.options, "source": app.source}
        )

    def _answer_status(self) -> Answer:
        found, age_s = self.status.aged()
        return json_answer(status_document(found), Age=str(round(age_s)))

    def _read_status(self) -> AppStatus:
        clients = self._clients
        found = read_status(
            self._app.name,
            clients.cluster,
            clients.reader,
            self._clock.wall_ms(),
            checkpoints=self._checkpoints,
        )
        return found.named(self._app.target)

    def _read_moves(self) -> Any:
        with self._notes_lock:
            return self._notes.read()

    def _read_ring(self) -> dict[str, object]:
        found = self.status.value()
        owned: dict[str, list[TaskId]] = {}
        for status in found.tasks:
            if status.phase in {TaskPhase.LIVE, TaskPhase.MOVING}:
                owned.setdefault(status.worker, []).append(status.task)
        moves = grouped(self._read_moves().events)[-_MOVES:]
        return {
            "now_ms": self._clock.wall_ms(),
            "workers": [
                {
                    "worker": each.worker,
                    "process": each.process,
                    "started_ms": process_age(each.process)[0],
                    "weight": each.weight,
                    "waiting": each.waiting,
                    "groups": sorted(each.rings),
                    "watched": each.watched,
                    "task_count": len(owned.get(each.worker, ())),
                    "tasks": task_ranges(owned.get(each.worker, ())),
                }
                for each in found.workers
            ],
            "moves": [
                {
                    "at_ms": move.at_ms,
                    "kind": move.kind,
                    "tasks": task_ranges(move.tasks),
                    "task_count": len(move.tasks),
                    "from": move.before,
                    "to": move.worker,
                    "why": move.why,
                }
                for move in reversed(moves)
                if move.kind in {"acquire", "failure"}
            ],
        }

    def _read_timeline(self) -> dict[str, object]:
        tasks = [each.task for each in self.status.value().tasks if not each.database and each.seq]
        with self._notes_lock:
            return self._history.read(tasks, self._notes.read())

    def _read_topology(self) -> dict[str, object]:
        found = self.status.value()
        if self._app.declared is None:
            for group in {each.task.group for each in found.tasks if not each.database and each.seq}:
                if group not in self._table_names:
                    self._table_names[group] = self._tables_of(group)
        return topology_of(self._app.declared, found, self._table_names)

    def _tables_of(self, group: str) -> Sequence[str]:
        """The tables of a group, as the first entry of a journal names them."""
        task, reader = TaskId(self._app.name, group, 0), self._clients.reader
        bounds = reader.bounds(task.journal)
        first = first_entry(task, reader, bounds.start, bounds.stable_end)
        identity = first.entry.identity if first is not None else None
        return list(identity.tables) if identity is not None else []

    def _answer_task(self, request: Request) -> Answer:
        """`/api/task/GROUP/N`, or with `?table=TABLE&key=KEY` for one row."""
        group, _, number = request.path.removeprefix("/api/task/").partition("/")
        if not group or not number.isdecimal() or len(number) > 9:
            return failed(HTTPStatus.NOT_FOUND, "there is no such task", "the path is /api/task/GROUP/N")
        table, key = request.query.get("table", ""), request.query.get("key")

        def read() -> dict[str, object]:
            if not any(
                each.task == (self._app.name, group, int(number)) for each in self.status.value().tasks
            ):
                raise InputError(f"app {self._app.name} has no task {group}/{number}", hint="reload the page")
            with self._view_lock:
                if table and key is not None:
                    return self._view.row(group, int(number), table, key)
                return self._view.read(group, int(number))

        asked = (group, number, *((table, key) if table and key is not None else ()))
        with self._tasks_lock:
            background = self._tasks.get(asked)
            if background is None:
                background = self._tasks[asked] = self._background(f"task {group}/{number}", read)
                if len(self._tasks) > _KEPT_TASKS:
                    self._tasks.popitem(last=False)
            self._tasks.move_to_end(asked)
        try:
            return _aged(background)
        except InputError as error:
            return failed(HTTPStatus.NOT_FOUND, error.message, error.hint or "")

    def _answer_drills(self) -> Answer:
        reports = self._app.reports
        listed = [
            {**each, "link": self._link(str(each["id"]))}
            for each in (reports.listed(self._app.name) if reports is not None else ())
        ]
        return json_answer({"reports": listed, "directory_read": reports is not None})

    def _link(self, report: str) -> str:
        """The address of a report, relative to the page. With a token, it is signed and valid for 10 to 20 minutes."""
        if not self._settings.token:
            return f"drills/{report}"
        # The same link for a while, so that the list does not change at each request.
        until_s = (self._clock.wall_ms() // 1000 // _LINK_S + 2) * _LINK_S
        return f"drills/{report}?until={until_s}&signature={self._signature(report, str(until_s))}"

    def _signature(self, report: str, until_s: str) -> str:
        return hmac.new(self._settings.token.encode(), f"{report} {until_s}".encode(), sha256).hexdigest()

    def _answer_report(self, request: Request) -> Answer:
        report = request.path.removeprefix("/drills/")
        if self._settings.token:
            until_s, signature = request.query.get("until", ""), request.query.get("signature", "")
            right = hmac.compare_digest(signature.encode(), self._signature(report, until_s).encode())
            if not right or int(until_s) * 1000 < self._clock.wall_ms():
                return failed(
                    HTTPStatus.UNAUTHORIZED, "this link is not valid any more", "open it from the page"
                )
        page = self._app.reports.page(self._app.name, report) if self._app.reports is not None else None
        if page is None:
            return failed(HTTPStatus.NOT_FOUND, "there is no such report", "pipeline drill report list")
        headers = {"Content-Security-Policy": _REPORT_POLICY, "X-Frame-Options": "DENY"}
        return Answer(page.encode(), "text/html; charset=utf-8", HTTPStatus.OK, headers)


def _aged(background: Background[Any]) -> Answer:
    document, age_s = background.aged()
    return json_answer(document, Age=str(round(age_s)))
