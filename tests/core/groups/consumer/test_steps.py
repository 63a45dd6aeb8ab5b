"""Work in steps comes to what the same work at once does, and no step is long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.consumer_groups import image_of

from millstream.core.groups.consumer import steps
from millstream.core.groups.consumer.assignors import ASSIGNORS, STEPPING_ASSIGNORS, MemberSpec
from millstream.core.groups.consumer.steps import STEP_COUNT_MAX, finish, pieces, sorted_in_steps
from millstream.core.groups.consumer.topic_hash import topics_hash, topics_hash_in_steps

TOPICS_COUNT = 20_000
# How often one step may look at a topic that it deals with.
LOOKS_MAX = 3


@given(st.lists(st.tuples(st.integers(0, 5), st.integers())), st.integers(1, 4))
def test_sorting_in_steps_is_sorting(items: list[tuple[int, int]], step_count: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(steps, "STEP_COUNT_MAX", step_count)
        assert finish(sorted_in_steps(items)) == sorted(items)
        assert finish(sorted_in_steps(items, key=lambda item: item[0])) == sorted(items, key=lambda item: item[0])
        assert [item for piece in pieces(items) for item in piece] == items
        assert all(len(piece) <= step_count for piece in pieces(items))


class _Counted(Mapping[bytes, int]):
    """How many partitions topics have, and how often somebody asked."""

    def __init__(self, counts: dict[bytes, int]) -> None:
        self._counts = counts
        self.asked = 0

    def __getitem__(self, topic_id: bytes) -> int:
        self.asked += 1
        return self._counts[topic_id]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)


def _members(case: str, topics: list[bytes]) -> dict[str, MemberSpec]:
    everything = frozenset(topics)
    had = dict.fromkeys(topics, frozenset({0}))
    return {
        "new": MemberSpec(None, everything, {}),
        "old": MemberSpec(None, everything if case == "alike" else frozenset(topics[:15_000]), had),
    }


@pytest.mark.parametrize("case", ["alike", "not alike"])
@pytest.mark.parametrize("name", sorted(ASSIGNORS))
def test_no_step_of_an_assignor_is_about_many_topics(name: str, case: str) -> None:
    topics = [number.to_bytes(16, "big") for number in range(TOPICS_COUNT)]
    counts = _Counted(dict.fromkeys(topics, 1))
    members = _members(case, topics)
    work = STEPPING_ASSIGNORS[name](members, counts)
    steps_count = most = 0
    while True:
        counts.asked = 0
        try:
            next(work)
        except StopIteration as end:
            assignment = end.value
            break
        finally:
            most = max(most, counts.asked)
        steps_count += 1
    assert assignment == ASSIGNORS[name](members, dict.fromkeys(topics, 1))
    assert most <= LOOKS_MAX * STEP_COUNT_MAX
    # Each topic is looked at more than once by whatever assignor.
    assert steps_count >= 2 * TOPICS_COUNT // STEP_COUNT_MAX


def test_a_hash_in_steps_is_the_same() -> None:
    image = image_of({f"topic-{number}": number % 7 + 1 for number in range(1_000)})
    names = [*image.topics, "missing"]
    assert len(list(topics_hash_in_steps(names, image))) >= len(names) // STEP_COUNT_MAX
    assert finish(topics_hash_in_steps(names, image)) == topics_hash(names, image)
