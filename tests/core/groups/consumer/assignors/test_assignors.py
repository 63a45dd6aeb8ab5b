"""What every assignment must be, whichever members, topics and former assignment there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.core.groups.consumer.assignors import ASSIGNORS, Assignment, MemberSpec

Members = dict[str, MemberSpec]
Counts = dict[bytes, int]

BALANCED_WITHIN = 1
THOUSAND = 1_000


def topic(number: int) -> bytes:
    return bytes([number]) * 16


@st.composite
def groups(draw: st.DrawFn, *, homogeneous: bool | None = None) -> tuple[Members, Counts]:
    """Members with what they had: anything, of topics that are gone or shrunk as well, but no partition twice."""
    counts = {topic(number): count for number, count in enumerate(draw(st.lists(st.integers(1, 9), max_size=5)))}
    names = [f"m{number}" for number in range(draw(st.integers(1, 6)))]
    alike = draw(st.booleans()) if homogeneous is None else homogeneous
    subsets = st.frozensets(st.sampled_from(sorted(counts))) if counts else st.just(frozenset())
    topics = [draw(subsets)] * len(names) if alike else [draw(subsets) for _ in names]
    current: dict[str, dict[bytes, frozenset[int]]] = {name: {} for name in names}
    for topic_id in [*counts, topic(99)]:
        owners = draw(st.lists(st.sampled_from([*names, ""]), min_size=10, max_size=10))
        for name in names:
            had = frozenset(partition for partition, owner in enumerate(owners) if owner == name)
            if had:
                current[name][topic_id] = had
    instances = [draw(st.sampled_from([None, f"i{number}"])) for number in range(len(names))]
    return {
        name: MemberSpec(instance, subscribed, current[name])
        for name, instance, subscribed in zip(names, instances, topics, strict=True)
    }, counts


def check_complete(members: Members, counts: Counts, assignment: Assignment) -> None:
    assert assignment.keys() == members.keys()
    given_out: Counter[tuple[bytes, int]] = Counter()
    for member_id, topics in assignment.items():
        assert topics.keys() <= members[member_id].topics, f"{member_id} got topics that it does not read"
        assert all(topics.values()), f"{member_id} got an empty topic"
        given_out.update((topic_id, partition) for topic_id, each in topics.items() for partition in each)
    wanted = {topic_id for member in members.values() for topic_id in member.topics}
    assert given_out == Counter({(topic_id, each): 1 for topic_id in wanted for each in range(counts[topic_id])})


def sizes(assignment: Assignment) -> dict[str, int]:
    return {member_id: sum(map(len, topics.values())) for member_id, topics in assignment.items()}


def with_current(members: Members, assignment: Assignment) -> Members:
    return {member_id: member._replace(current=assignment[member_id]) for member_id, member in members.items()}


@pytest.mark.parametrize("name", sorted(ASSIGNORS))
@given(groups())
def test_every_partition_of_a_subscribed_topic_has_one_owner(name: str, case: tuple[Members, Counts]) -> None:
    members, counts = case
    check_complete(members, counts, ASSIGNORS[name](members, counts))


@pytest.mark.parametrize("name", sorted(ASSIGNORS))
@given(groups())
def test_an_assignment_that_stands_is_left_alone(name: str, case: tuple[Members, Counts]) -> None:
    members, counts = case
    first = ASSIGNORS[name](members, counts)
    assert ASSIGNORS[name](with_current(members, first), counts) == first


@given(groups(homogeneous=True))
def test_uniform_is_even_and_moves_as_little_as_can_be(case: tuple[Members, Counts]) -> None:
    members, counts = case
    assignment = ASSIGNORS["uniform"](members, counts)
    loads = sizes(assignment)
    assert max(loads.values()) - min(loads.values()) <= BALANCED_WITHIN
    kept = {
        member_id: sum(len(partitions & topics.get(topic_id, frozenset())) for topic_id, partitions in had.items())
        for (member_id, topics), had in zip(
            assignment.items(), (valid(members[each], counts) for each in assignment), strict=True
        )
    }
    had = {member_id: sum(map(len, valid(member, counts).values())) for member_id, member in members.items()}
    total = sum(loads.values())
    share, extra = divmod(total, len(members))
    # Whoever had most may keep the odd ones; more than this nobody could keep and stay even.
    best = sum(min(count, share + (rank < extra)) for rank, count in enumerate(sorted(had.values(), reverse=True)))
    assert sum(kept.values()) == best


def valid(member: MemberSpec, counts: Counts) -> Mapping[bytes, frozenset[int]]:
    return {
        topic_id: frozenset(each for each in partitions if each < counts[topic_id])
        for topic_id, partitions in member.current.items()
        if topic_id in member.topics
    }


@given(groups(homogeneous=False))
def test_uniform_leaves_no_move_that_would_make_it_more_even(case: tuple[Members, Counts]) -> None:
    members, counts = case
    assignment = ASSIGNORS["uniform"](members, counts)
    loads = sizes(assignment)
    for giver, topics in assignment.items():
        for topic_id in topics:
            for taker, spec in members.items():
                if topic_id in spec.topics:
                    assert loads[giver] - loads[taker] <= BALANCED_WITHIN, f"{giver} could give to {taker}"


@given(groups())
def test_range_gives_runs_that_differ_by_one(case: tuple[Members, Counts]) -> None:
    members, counts = case
    assignment = ASSIGNORS["range"](members, counts)
    for topic_id in counts:
        runs = [
            assignment[each].get(topic_id, frozenset()) for each, spec in members.items() if topic_id in spec.topics
        ]
        for run in runs:
            assert not run or run == frozenset(range(min(run), max(run) + 1))
        if runs:
            assert max(map(len, runs)) - min(map(len, runs)) <= BALANCED_WITHIN


def test_range_gives_the_same_partitions_of_topics_of_one_size() -> None:
    counts = {topic(1): 7, topic(2): 7}
    members = {name: MemberSpec(None, frozenset(counts), {}) for name in ("a", "b", "c")}
    for topics in ASSIGNORS["range"](members, counts).values():
        assert topics[topic(1)] == topics[topic(2)]


def test_range_knows_a_static_member_by_its_instance() -> None:
    counts = {topic(1): 4}
    before = ASSIGNORS["range"](
        {"x": MemberSpec("i1", frozenset(counts), {}), "a": MemberSpec("i2", frozenset(counts), {})}, counts
    )
    after = ASSIGNORS["range"](
        {"zz": MemberSpec("i1", frozenset(counts), {}), "b": MemberSpec("i2", frozenset(counts), {})}, counts
    )
    assert (after["zz"], after["b"]) == (before["x"], before["a"])


def test_a_member_that_comes_takes_its_share_and_no_more() -> None:
    counts = {topic(number): 100 for number in range(10)}
    members = {f"m{number}": MemberSpec(None, frozenset(counts), {}) for number in range(9)}
    first = ASSIGNORS["uniform"](members, counts)
    joined = with_current(members, first) | {"new": MemberSpec(None, frozenset(counts), {})}
    second = ASSIGNORS["uniform"](joined, counts)
    moved = sum(len(first[each][one] - second[each].get(one, frozenset())) for each in first for one in first[each])
    assert moved == THOUSAND // 10


def test_one_that_reads_twenty_thousand_topics_gives_up_half_of_them_at_once() -> None:
    """In time that grows with the topics; with their square it takes longer than a test may."""
    counts = {number.to_bytes(16, "big"): 1 for number in range(20_000)}
    topics = frozenset(counts)
    members = {
        "new": MemberSpec(None, topics, {}),
        "old": MemberSpec(None, topics, dict.fromkeys(counts, frozenset({0}))),
    }
    assert sizes(ASSIGNORS["uniform"](members, counts)) == {"new": 10_000, "old": 10_000}
