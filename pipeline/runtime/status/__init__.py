"""The status of an app, read only from Kafka, so that it is available when no worker is alive.

The journals contain the commits, their owners and the checkpoints; the Kafka group of the workers lists the live
members; the workers' topic contains their notes. A large `lag` counts offsets, including markers, as lag tools do. A
small one counts records, so that it is 0 when everything is processed.

A sink task has its positions in a database, which is not queried. Its owner's note contains its epoch. Its positions
are those of the consumer group, to which workers write every few seconds.

The predicted time of a restore on an empty disk is the time to copy the newest checkpoint and to replay the journal
after it, at the speeds that the live workers have measured (`core/recovery_time.py`).
"""

from pipeline.runtime.status.app_status import AppStatus, TaskPhase, TaskStatus, WorkerStatus
from pipeline.runtime.status.document import status_document
from pipeline.runtime.status.groups import (
    GroupStatus,
    ProblemCause,
    group_statuses,
    problem_causes,
    spare_workers,
)
from pipeline.runtime.status.reading import read_open_letters, read_status
from pipeline.runtime.status.stopping import reasons_to_wait

__all__ = [
    "AppStatus",
    "GroupStatus",
    "ProblemCause",
    "TaskPhase",
    "TaskStatus",
    "WorkerStatus",
    "group_statuses",
    "problem_causes",
    "read_open_letters",
    "read_status",
    "reasons_to_wait",
    "spare_workers",
    "status_document",
]
