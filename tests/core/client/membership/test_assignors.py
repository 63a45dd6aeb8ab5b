"""Our assignors against Kafka's: range and roundrobin to the partition, the sticky ones by what makes them so."""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.support.consumer_groups import topic_id

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.membership import (
    Assignor,
    CooperativeStickyAssignor,
    MemberSubscription,
    RangeAssignor,
    RoundRobinAssignor,
    StickyAssignor,
    TopicLayout,
    Topics,
)
from millstream.core.client.membership.assignors import Shares, assignors_named
from millstream.core.client.membership.assignors.sticky import cooperative_claim, sticky_claim
from millstream.core.config.definition import ConfigError
from millstream.testing.kafka import Java

TOOL = Path(__file__).parents[3] / "support" / "AssignorTool.java"
SEED = 881
RACKS = ("r1", "r2", "r3")
EXACT: tuple[Assignor, ...] = (RangeAssignor(), RoundRobinAssignor())
STICKY: tuple[Assignor, ...] = (StickyAssignor(), CooperativeStickyAssignor())


class Case(NamedTuple):
    """A group to share topics among."""

    assignor: Assignor
    members: tuple[MemberSubscription, ...]
    topics: Topics

    def lines(self) -> Iterator[str]:
        """As the Java tool reads it."""
        yield f"case {self.assignor.name}"
        for name, layout in self.topics.items():
            yield f"topic {name} {','.join('+'.join(sorted(racks)) or '-' for racks in layout.racks)}"
        for member in self.members:
            owned = ",".join(f"{topic}:{each}" for topic, each in member.owned) or "-"
            words = (
                member.member_id,
                member.instance_id or "-",
                member.rack or "-",
                ",".join(sorted(member.topics)) or "-",
                owned,
                str(member.generation),
                member.user_data.hex() if member.user_data else "-",
            )
            yield f"member {' '.join(words)}"
        yield "end"


def draw_case(draw: random.Random, assignor: Assignor, *, alike: bool | None = None) -> Case:
    """A group of any shape."""
    has_racks = draw.random() < 0.5
    topics = {
        f"t{number}": TopicLayout(
            tuple(
                frozenset(draw.sample(RACKS, draw.randint(1, 3))) if has_racks else frozenset()
                for _ in range(draw.choice((1, 2, 3, 6, 6, 7)))
            )
        )
        for number in range(draw.randint(1, 5))
    }
    same = draw.random() < 0.5 if alike is None else alike
    everything = frozenset(topics) | ({"absent"} if draw.random() < 0.2 else set())
    members = tuple(
        MemberSubscription(
            member_id=f"m{draw.randrange(1000):03}-{number}",
            topics=everything if same else frozenset(draw.sample(sorted(everything), draw.randint(0, len(everything)))),
            instance_id=f"i{draw.randrange(1000):03}-{number}" if draw.random() < 0.3 else None,
            rack=draw.choice(RACKS) if has_racks and draw.random() < 0.8 else None,
        )
        for number in range(draw.randint(1, 6))
    )
    return Case(assignor, members, topics)


def run_java(jars: Path, cases: Sequence[Case]) -> list[dict[str, list[TopicPartition]]]:
    """What Kafka's assignors make of the cases."""
    text = "".join(f"{line}\n" for case in cases for line in case.lines())
    command = Java(jars).command(str(TOOL))
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=100, check=True)
    found = []
    for line in done.stdout.splitlines():
        shares: dict[str, list[TopicPartition]] = {}
        for word in line.split(" "):
            member_id, _, partitions = word.partition("=")
            shares[member_id] = sorted(
                TopicPartition(one.split(":")[0], int(one.split(":")[1])) for one in partitions.split(",") if one
            )
        found.append(shares)
    assert len(found) == len(cases), done.stderr
    return found


@pytest.mark.java
def test_range_and_roundrobin_share_as_kafkas_do(jars: Path) -> None:
    draw = random.Random(SEED)
    cases = [draw_case(draw, draw.choice(EXACT)) for _ in range(1_500)]
    for case, theirs in zip(cases, run_java(jars, cases), strict=True):
        ours = {member: sorted(share) for member, share in case.assignor.assign(case.members, case.topics).items()}
        assert ours == theirs, "\n".join(case.lines())


def check_shares(case: Case, shares: Shares) -> None:
    """Every partition that somebody subscribes to has one owner, who does."""
    owners = Counter(tp for share in shares.values() for tp in share)
    wanted = {
        TopicPartition(name, each)
        for name, layout in case.topics.items()
        for each in range(layout.partition_count)
        if any(name in member.topics for member in case.members)
    }
    assert set(owners) == wanted
    assert set(owners.values()) <= {1}
    for member in case.members:
        assert {tp.topic for tp in shares[member.member_id]} <= member.topics


def spread(case: Case, shares: Shares) -> list[int]:
    return sorted(len(shares[member.member_id]) for member in case.members)


def remembering(case: Case, shares: Shares, generation: int) -> Case:
    """The same group, with members that have what they were given."""
    members = []
    for member in case.members:
        mine = tuple(shares.get(member.member_id, ()))
        assignor = type(case.assignor)()
        assignor.on_assignment(mine, generation)
        members.append(
            MemberSubscription(
                member_id=member.member_id,
                topics=member.topics,
                instance_id=member.instance_id,
                rack=member.rack,
                owned=mine if isinstance(assignor, CooperativeStickyAssignor) else (),
                generation=generation if isinstance(assignor, CooperativeStickyAssignor) else -1,
                user_data=assignor.user_data(member.topics),
            )
        )
    return Case(case.assignor, tuple(members), case.topics)


@pytest.mark.parametrize("assignor", STICKY, ids=lambda each: each.name)
def test_sticky_shares_are_even_and_stay(assignor: Assignor) -> None:
    draw = random.Random(SEED)
    for _ in range(400):
        case = draw_case(draw, assignor)
        shares = assignor.assign(case.members, case.topics)
        check_shares(case, shares)
        if len({member.topics for member in case.members}) == 1:
            assert spread(case, shares)[-1] - spread(case, shares)[0] <= 1
        check_no_better_chain(case, shares)
        again = remembering(case, shares, 3)
        assert {key: sorted(share) for key, share in assignor.assign(again.members, again.topics).items()} == {
            key: sorted(share) for key, share in shares.items()
        }


def check_no_better_chain(case: Case, shares: Shares) -> None:
    """Passing partitions on, over any number of members, would make no two shares more even."""
    subscribed = {member.member_id: member.topics for member in case.members}
    for giver in shares:
        reached, waiting = {giver}, [giver]
        while waiting:
            topics = {tp.topic for tp in shares[waiting.pop()]}
            new = [one for one in shares if one not in reached and topics & subscribed[one]]
            reached.update(new)
            waiting += new
        assert min(len(shares[one]) for one in reached) + 1 >= len(shares[giver])


@pytest.mark.java
def test_sticky_shares_are_as_even_as_kafkas_and_move_no_more(jars: Path) -> None:
    """After a member came or went, from what members say they had; Kafka's reads what ours says of itself."""
    draw = random.Random(SEED)
    cases, before = [], []
    for _ in range(300):
        case = draw_case(draw, draw.choice(STICKY), alike=True)
        case = case._replace(
            members=tuple(replace_rack(member) for member in case.members),
        )
        had = case.assignor.assign(case.members, case.topics)
        after = remembering(case, had, 5)
        members = after.members[1:] if draw.random() < 0.5 and len(after.members) > 1 else after.members
        if draw.random() < 0.5:
            members = (*members, MemberSubscription("new", case.members[0].topics))
        cases.append(after._replace(members=members))
        before.append(had)
    theirs = run_java(jars, cases)
    for case, had, their_shares in zip(cases, before, theirs, strict=True):
        ours = case.assignor.assign(case.members, case.topics)
        if isinstance(case.assignor, StickyAssignor):
            check_shares(case, ours)
            assert spread(case, ours) == spread(case, their_shares), "\n".join(case.lines())
        assert stayed(had, ours) == stayed(had, their_shares), "\n".join(case.lines())


def replace_rack(member: MemberSubscription) -> MemberSubscription:
    return MemberSubscription(member.member_id, member.topics, member.instance_id)


def stayed(had: Shares, now: Shares) -> int:
    """How many partitions are still with the member that had them."""
    return sum(len(set(share) & set(now.get(member_id, ()))) for member_id, share in had.items())


def test_cooperative_sticky_gives_nothing_that_another_still_has() -> None:
    draw = random.Random(SEED)
    assignor = CooperativeStickyAssignor()
    for _ in range(300):
        case = draw_case(draw, assignor)
        case = remembering(case, assignor.assign(case.members, case.topics), 2)
        new = MemberSubscription("new", frozenset(case.topics))
        members = (*case.members[1:], new) if draw.random() < 0.3 else (*case.members, new)
        holders = {tp: member.member_id for member in members for tp in member.owned}
        rounds = 0
        while True:
            shares = assignor.assign(members, case.topics)
            for member_id, share in shares.items():
                for tp in share:
                    assert holders.get(tp, member_id) == member_id
            rounds += 1
            case = Case(assignor, tuple(members), case.topics)
            settled = remembering(case, shares, 2 + rounds)
            if [set(each.owned) for each in settled.members] == [set(each.owned) for each in members]:
                break
            members = settled.members
            holders = {tp: member.member_id for member in members for tp in member.owned}
            assert rounds < 5
        check_shares(case, shares)
        check_no_better_chain(case, shares)


def test_of_two_claims_the_later_holds() -> None:
    topics = {"t": TopicLayout.of(2)}
    both = (TopicPartition("t", 0), TopicPartition("t", 1))

    def member(name: str, generation: int) -> MemberSubscription:
        return MemberSubscription(name, frozenset({"t"}), owned=both, generation=generation)

    shares = CooperativeStickyAssignor().assign([member("a", 4), member("b", 3)], topics)
    assert len(shares["a"]) == 1
    sticky = StickyAssignor()
    sticky.on_assignment(both[:1], 7)
    old = StickyAssignor()
    old.on_assignment(both, 6)
    subscribed = frozenset({"t"})
    members = [
        MemberSubscription("a", subscribed, user_data=old.user_data(subscribed)),
        MemberSubscription("b", subscribed, user_data=sticky.user_data(subscribed)),
    ]
    assert StickyAssignor().assign(members, topics) == {"a": [both[1]], "b": [both[0]]}


def test_a_large_group_with_different_subscriptions_is_shared() -> None:
    draw = random.Random(SEED)
    topics = {f"t{number}": TopicLayout.of(40) for number in range(50)}
    members = tuple(
        MemberSubscription(f"m{number}", frozenset(draw.sample(sorted(topics), 20))) for number in range(200)
    )
    case = Case(StickyAssignor(), members, topics)
    shares = case.assignor.assign(members, topics)
    check_shares(case, shares)
    assert spread(case, shares) == [10] * 200


def test_user_data_that_nobody_can_read_says_nothing() -> None:
    for data in (None, b"", b"\x00", b"\xff" * 40, topic_id("t")):
        member = MemberSubscription("a", frozenset({"t"}), user_data=data)
        assert sticky_claim(member).partitions == ()
        assert cooperative_claim(member).partitions == ()


def test_user_data_of_version_0_is_read() -> None:
    data = b"\0\0\0\1" + b"\0\1t" + b"\0\0\0\2" + b"\0\0\0\0" + b"\0\0\0\1"
    claim = sticky_claim(MemberSubscription("a", frozenset({"t"}), user_data=data))
    assert claim.partitions == (TopicPartition("t", 0), TopicPartition("t", 1))
    assert claim.generation == -1


def test_names_of_configs_and_of_java_classes() -> None:
    found = assignors_named(["org.apache.kafka.clients.consumer.CooperativeStickyAssignor", "range", "StickyAssignor"])
    assert [each.name for each in found] == ["cooperative-sticky", "range", "sticky"]
    with pytest.raises(ConfigError, match="Unknown assignor 'rnage'"):
        assignors_named(["rnage"])


def test_without_members_or_topics_nothing_is_shared() -> None:
    nothing: Mapping[str, TopicLayout] = {}
    for assignor in (*EXACT, *STICKY):
        assert assignor.assign([], {"t": TopicLayout.of(3)}) == {}
        one = MemberSubscription("a", frozenset({"t"}))
        assert assignor.assign([one], nothing) == {"a": []}
        assert assignor.assign([MemberSubscription("a", frozenset())], {"t": TopicLayout.of(3)}) == {"a": []}
