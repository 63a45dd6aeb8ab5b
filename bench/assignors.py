"""How long an assignment takes, and how long the coordinator's loop is held by it: `python bench/assignors.py`.

Each figure is the best of five runs, in milliseconds: 1,000 members and 10,000 partitions in 100 topics, anew, after
one member left, and with members that read 20 topics each; then 20,000 topics of one partition for two members.
CPU time is counted; others run between any two steps.
"""

from __future__ import annotations

import random
import time
from typing import NamedTuple

from millstream.core.groups.consumer.assignors import ASSIGNORS, STEPPING_ASSIGNORS, MemberSpec

MEMBERS_COUNT = 1_000
REPEATS = 5


class Taken(NamedTuple):
    """What one assignment took."""

    longest_step_ms: float
    whole_ms: float
    steps_count: int


def taken(name: str, members: dict[str, MemberSpec], counts: dict[bytes, int]) -> Taken:
    """Make an assignment once."""
    steps = STEPPING_ASSIGNORS[name](members, counts)
    longest = whole = 0.0
    count = 0
    is_done = False
    while not is_done:
        begin = time.thread_time()
        try:
            next(steps)
        except StopIteration:
            is_done = True
        step = time.thread_time() - begin
        longest = max(longest, step)
        whole += step
        count += 1
    return Taken(longest * 1000, whole * 1000, count)


def main() -> None:
    """Print a line for each assignor and case."""
    counts = {number.to_bytes(16, "big"): 100 for number in range(100)}
    topics = frozenset(counts)
    members = {f"m{number:04}": MemberSpec(None, topics, {}) for number in range(MEMBERS_COUNT)}
    source = random.Random(5)
    mixed = {name: spec._replace(topics=frozenset(source.sample(sorted(counts), 20))) for name, spec in members.items()}
    many = {number.to_bytes(16, "big"): 1 for number in range(20_000)}
    two = {
        "new": MemberSpec(None, frozenset(many), {}),
        "old": MemberSpec(None, frozenset(many), dict.fromkeys(many, frozenset({0}))),
    }
    for name, assign in sorted(ASSIGNORS.items()):
        first = assign(members, counts)
        held = {member: spec._replace(current=first[member]) for member, spec in members.items()}
        del held["m0500"]
        cases = {"anew": (members, counts), "one left": (held, counts), "20 topics each": (mixed, counts)}
        for case, (specs, sizes) in {**cases, "20,000 topics": (two, many)}.items():
            runs = [taken(name, specs, sizes) for _ in range(REPEATS)]
            print(
                f"{name:8} {case:16} {min(run.whole_ms for run in runs):8.1f} ms in {runs[0].steps_count:4} steps, "
                f"the longest {min(run.longest_step_ms for run in runs):6.2f} ms"
            )


if __name__ == "__main__":
    main()
