"""Steps that belong together: those of a commit, and those that only workers with a checkpoint store or sinks reach."""

from __future__ import annotations

from pipeline.ports import Step

__all__ = ["CHECKPOINT_STEPS", "COMMIT_STEPS", "DOWNLOAD_STEPS", "OWNER_STEPS", "SINK_STEPS"]

CHECKPOINT_STEPS = (
    Step.AFTER_SNAPSHOT,
    Step.DURING_UPLOAD,
    Step.BEFORE_MANIFEST,
    Step.AFTER_MANIFEST,
    Step.AFTER_CHECKPOINT,
    Step.DURING_CLEANUP,
    Step.BEFORE_TRUNCATE,
    Step.AFTER_TRUNCATE,
)
COMMIT_STEPS = (
    Step.BEFORE_BEGIN,
    Step.AFTER_OUTPUTS,
    Step.AFTER_ENTRY,
    Step.AFTER_FLUSH,
    Step.DURING_COMMIT,
    Step.AFTER_COMMIT,
    Step.BEFORE_APPLY,
    Step.AFTER_APPLY,
)
# From the fence of a new owner to a commit that is retired, without checkpoints.
OWNER_STEPS = (
    Step.AFTER_FENCE,
    Step.AFTER_CHOICE,
    Step.AFTER_REPLAY,
    Step.BEFORE_ACQUIRE,
    Step.AFTER_ACQUIRE,
    *COMMIT_STEPS,
    Step.BEFORE_RETIRE,
)
DOWNLOAD_STEPS = (Step.DURING_DOWNLOAD, Step.BEFORE_INSTALL, Step.AFTER_INSTALL)
SINK_STEPS = tuple(step for step in Step if step.name.startswith("SINK_"))
