"""How an app is doing, read from Kafka alone, so that it can be asked with every worker dead.

The journals say what was committed and by whom, and what checkpoints there are; the members' group who is alive; and
the workers' topic what they told each other. A large `lag` counts offsets, markers among them, as every lag tool
does; a small one counts records, so that it is 0 when all is done.

A task of sinks has its positions in a database, which is not asked: its owner's note has its epoch, and the mirror, the
consumer group that workers write every few seconds, says how far it is.

How long a restore on an empty disk would take is the time to copy the newest checkpoint and to replay the journal
behind it, at cautious speeds: `python -m benchmarks restore` shows those of a machine.
"""

from pipeline.runtime.status.found import AppStatus, TaskPhase, TaskStatus, WorkerStatus
from pipeline.runtime.status.reading import read_status

__all__ = ["AppStatus", "TaskPhase", "TaskStatus", "WorkerStatus", "read_status"]
