"""The largest matching of a bipartite graph: how many old alternatives find a new one of their own each."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping


def maximum_matching(edges: Mapping[int, Iterable[int]]) -> dict[int, int]:
    """Return a largest set of `edges` (left to right) in which no node is twice, as left to right.

    Augmenting paths, each found breadth first: at most one search over all edges for each node on the left.
    """
    left_of: dict[int, int] = {}
    right_of: dict[int, int] = {}
    for start in edges:
        reached_from: dict[int, int] = {}  # right, and the left it was reached from
        waiting, free = deque([start]), None
        while waiting and free is None:
            left = waiting.popleft()
            for right in edges[left]:
                if right in reached_from:
                    continue
                reached_from[right] = left
                if right not in left_of:
                    free = right
                    break
                waiting.append(left_of[right])
        while free is not None:
            left = reached_from[free]
            left_of[free] = left
            before = right_of.get(left)
            right_of[left] = free
            free = before
    return right_of
