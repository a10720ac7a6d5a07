"""What a shadow app is told: `ShadowSpec`, a file that the driller writes and the process of the shadow app reads."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pipeline.core.inputs import TaskInputs
from pipeline.core.names import TaskId
from pipeline.errors import InputError

__all__ = ["ENDS", "SOURCE_HEADER", "STARTS", "STATES", "ShadowSpec", "ShadowTask"]

# Directories of a shadow app: its states, and the states of the live tasks at the starts and the ends of the replays.
STATES, STARTS, ENDS = "state", "start", "end"

# The header of each output of a shadow app: the group and the partition of its record. An order is comparable only
# within one partition.
SOURCE_HEADER = "pipeline-shadow-source"


class ShadowTask(msgspec.Struct, frozen=True):
    """The part of a task's history that is replayed.

    Attributes:
        group: the handler group.
        number: the number of the task.
        tasks: the number of the group's tasks.
        seq: the live entry whose state the replay begins with; 0: it begins without rows.
        start: the first input offset to process, by input name (`core/inputs.py`).
        end: the input offset at which the replay ends, by input name.
        end_seq: the live entry with these positions.
        boundaries: the positions of the live entries between, in order, by input name, if the group reads one topic.
            The shadow task commits at some of them, so that its rows can be compared with those of the live task at
            the same position.
    """

    group: str
    number: int
    tasks: int
    seq: int
    start: dict[str, int]
    end: dict[str, int]
    end_seq: int
    boundaries: dict[str, list[int]] = {}

    def task(self, app: str) -> TaskId:
        """The task, in the live or in the shadow app."""
        return TaskId(app, self.group, self.number)

    @property
    def inputs(self) -> TaskInputs:
        """The names of its inputs."""
        return TaskInputs(self.number, self.tasks)

    @property
    def several(self) -> bool:
        """Whether it has several partitions."""
        return len(self.inputs.numbers(self.end)) > 1


class ShadowSpec(msgspec.Struct, frozen=True):
    """A shadow app: its name, its topics by those of the live app, and its tasks. `place`: its directory."""

    live: str
    shadow: str
    place: str
    outputs: dict[str, str]
    tasks: list[ShadowTask]

    def write(self, path: Path) -> None:
        """Write the file."""
        path.write_bytes(msgspec.json.encode(self))

    @staticmethod
    def read(path: Path) -> ShadowSpec:
        """Read the file. Raises InputError."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=ShadowSpec)
        except OSError as error:
            raise InputError(
                f"{path} cannot be read: {error.strerror}", hint="the drill has ended"
            ) from error
        except msgspec.MsgspecError as error:
            raise InputError(f"{path} does not describe a shadow app: {error}") from error
