"""How long the coordinator's loop is held by an assignment: `python bench/assignors.py`.

Each figure is the best of five runs, in milliseconds: 1,000 members and 10,000 partitions in 100 topics, anew, after
one member left, and with members that read 20 topics each; then 20,000 topics of one partition for two members.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial

from millstream.core.groups.consumer.assignors import ASSIGNORS, Assignment, MemberSpec

MEMBERS_COUNT = 1_000
REPEATS = 5


def best_ms(work: Callable[[], Assignment]) -> float:
    """The least time that `work` took."""
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times) * 1000


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
            print(f"{name:8} {case:16} {best_ms(partial(assign, specs, sizes)):8.1f} ms")


if __name__ == "__main__":
    main()
