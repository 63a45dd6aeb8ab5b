"""Server-side assignors of the consumer protocol: who is to read which partitions. Pure.

By the name that members and `group.consumer.assignors` call them: `STEPPING_ASSIGNORS` work in steps, between which
others may run, `ASSIGNORS` do the same at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from millstream.core.groups.consumer.assignors.range import assign_range
from millstream.core.groups.consumer.assignors.spec import (
    Assignment,
    Assignor,
    Members,
    MemberSpec,
    PartitionCounts,
    SteppingAssignor,
)
from millstream.core.groups.consumer.assignors.uniform import assign_uniform
from millstream.core.groups.consumer.steps import finish

STEPPING_ASSIGNORS: Final[Mapping[str, SteppingAssignor]] = {"uniform": assign_uniform, "range": assign_range}


def _at_once(assign: SteppingAssignor) -> Assignor:
    def assign_at_once(members: Members, partition_counts: PartitionCounts) -> Assignment:
        return finish(assign(members, partition_counts))

    return assign_at_once


ASSIGNORS: Final[Mapping[str, Assignor]] = {name: _at_once(assign) for name, assign in STEPPING_ASSIGNORS.items()}

__all__ = [
    "ASSIGNORS",
    "STEPPING_ASSIGNORS",
    "Assignment",
    "Assignor",
    "MemberSpec",
    "SteppingAssignor",
]
