"""The steps of the protocols at which a crash must be harmless: `Step`."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from pipeline.core.names import TaskId

__all__ = ["Step", "Steps"]


class Step(Enum):
    """The named points of the protocol where a crash must be harmless."""

    BEFORE_BEGIN = "before_begin"
    AFTER_OUTPUTS = "after_outputs"
    AFTER_ENTRY = "after_entry"
    AFTER_FLUSH = "after_flush"
    DURING_COMMIT = "during_commit"
    AFTER_COMMIT = "after_commit"
    BEFORE_APPLY = "before_apply"
    AFTER_APPLY = "after_apply"
    BEFORE_RETIRE = "before_retire"
    AFTER_FENCE = "after_fence"
    AFTER_END = "after_end"
    AFTER_CHOICE = "after_choice"
    DURING_REPLAY = "during_replay"
    AFTER_REPLAY = "after_replay"
    BEFORE_ACQUIRE = "before_acquire"
    AFTER_ACQUIRE = "after_acquire"
    AFTER_SNAPSHOT = "after_snapshot"
    DURING_UPLOAD = "during_upload"
    BEFORE_MANIFEST = "before_manifest"
    AFTER_MANIFEST = "after_manifest"
    AFTER_CHECKPOINT = "after_checkpoint"
    DURING_CLEANUP = "during_cleanup"
    BEFORE_TRUNCATE = "before_truncate"
    AFTER_TRUNCATE = "after_truncate"
    DURING_DOWNLOAD = "during_download"
    BEFORE_INSTALL = "before_install"
    AFTER_INSTALL = "after_install"
    BEFORE_GENESIS = "before_genesis"
    DURING_GENESIS = "during_genesis"
    AFTER_GENESIS = "after_genesis"
    SINK_AFTER_POSITIONS = "sink_after_positions"
    SINK_BEFORE_CLAIM = "sink_before_claim"
    SINK_AFTER_CLAIM = "sink_after_claim"
    SINK_BEFORE_BEGIN = "sink_before_begin"
    SINK_AFTER_FENCE = "sink_after_fence"
    SINK_AFTER_ROWS = "sink_after_rows"
    SINK_DURING_COMMIT = "sink_during_commit"
    SINK_AFTER_COMMIT = "sink_after_commit"
    SINK_AFTER_RELEASE = "sink_after_release"


class Steps(Protocol):
    """Called at each step. In production it does nothing; tests crash the worker there."""

    def reached(self, step: Step, task: TaskId) -> None: ...
