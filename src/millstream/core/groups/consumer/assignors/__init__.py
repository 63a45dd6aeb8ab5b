"""Server-side assignors of the consumer protocol: who is to read which partitions. Pure.

`ASSIGNORS` has them by the name that members and `group.consumer.assignors` call them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from millstream.core.groups.consumer.assignors.range import assign_range
from millstream.core.groups.consumer.assignors.spec import Assignment, MemberSpec
from millstream.core.groups.consumer.assignors.uniform import assign_uniform

Assignor = Callable[[Mapping[str, MemberSpec], Mapping[bytes, int]], Assignment]

ASSIGNORS: Final[Mapping[str, Assignor]] = {"uniform": assign_uniform, "range": assign_range}

__all__ = ["ASSIGNORS", "Assignment", "Assignor", "MemberSpec"]
