"""`Group`, which `App.group` makes (`group_view`)."""

from __future__ import annotations

from pipeline.api.declared_group import DeclaredGroup
from pipeline.api.handler_methods import HandlerMethods

__all__ = ["Group", "group_view"]


class Group(HandlerMethods):
    """Handlers that share tables and positions, or sinks that share positions. Made by `app.group(...)`.

    The input topics of a group are co-partitioned: they have equally many partitions. Task N of T tasks processes
    the partitions N, N + T, N + 2 * T and so on of each, and commits by itself. Groups exchange data through topics.
    """

    def __repr__(self) -> str:
        return repr(self._group)

    @property
    def name(self) -> str:
        """The group's name."""
        return self._group.name


def group_view(declared: DeclaredGroup) -> Group:
    """What users hold of a declared group. They never make one, so `Group` has no constructor to show."""
    group = Group()
    group._group = declared  # noqa: SLF001 - the one place that does
    return group
