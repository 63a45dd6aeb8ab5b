"""One classic group: its record, what the offset store asks of it, and what bounds it."""

from __future__ import annotations

import gc
import sys
from dataclasses import replace
from typing import Any

import pytest
from tests.support.classic_groups import (
    CONFIGS,
    GROUP,
    HOST,
    SUBSCRIPTION,
    Coordinator,
    heartbeat_request,
    join_request,
    leave_request,
    sync_request,
)

from millstream.core.groups.classic import ClassicGroup, ClassicState, joins
from millstream.core.groups.classic.session import TIMER_AHEAD_MS_MAX, Session
from millstream.core.groups.group import Caller
from millstream.core.groups.records import (
    GroupMetadataKey,
    GroupMetadataValue,
    MemberMetadata,
    encode_key,
    encode_value,
)
from millstream.core.groups.shard import ShardState
from millstream.core.groups.timer_wheel import TimerWheel
from millstream.core.wire import ErrorCode, KafkaError, encode
from millstream.core.wire.messages.leave_group import LeaveGroupRequest

KEY = GroupMetadataKey(group=GROUP)


def stable(coordinator: Coordinator, count: int = 1, **what: Any) -> list[str]:
    """A stable group of so many members; their ids, the leader's first."""
    numbers = [coordinator.call("join_group", join_request(**what), version=3) for _ in range(count)]
    coordinator.pass_ms(6_000)
    answers = [coordinator.answers[number] for number in numbers]
    ids = [answer.member_id for answer in answers]
    given = [(member_id, b"part of " + member_id.encode()) for member_id in ids]
    for member_id in reversed(ids):
        mine = given if member_id == ids[0] else []
        coordinator.call("sync_group", sync_request(member_id, answers[0].generation_id, mine))
    assert coordinator.group is not None
    assert coordinator.group.state is ClassicState.STABLE
    return ids


def value_of(*members: MemberMetadata, generation: int = 7, timestamp: int = 5) -> GroupMetadataValue:
    return GroupMetadataValue(
        protocol_type="consumer",
        generation=generation,
        protocol="range" if members else None,
        leader=members[0].member_id if members else None,
        current_state_timestamp=timestamp,
        members=list(members),
    )


def loaded(value: GroupMetadataValue, version: int = 3) -> Coordinator:
    """A coordinator that finds this record, in this version, in its log."""
    coordinator = Coordinator()
    coordinator.log.append((encode_key(KEY), encode(value, version, version.to_bytes(2, "big"))))
    coordinator.fail()
    return coordinator


def member_of(
    member_id: str = "m", *, instance_id: str | None = None, subscription: bytes = SUBSCRIPTION
) -> MemberMetadata:
    return MemberMetadata(
        member_id=member_id,
        group_instance_id=instance_id,
        client_id="c",
        client_host="/h",
        rebalance_timeout=30_000,
        session_timeout=10_000,
        subscription=subscription,
        assignment=b"a",
    )


@pytest.mark.parametrize("version", range(5))
def test_records_of_every_version_are_loaded(version: int) -> None:
    group = loaded(value_of(member_of(), member_of("s", instance_id="i")), version).group
    assert group is not None
    assert (group.state_name, group.generation, group.protocol_name, group.leader_id) == ("Stable", 7, "range", "m")
    assert [member.assignment for member in group.members.values()] == [b"a", b"a"]
    # Version 0 knows of one timeout, versions before 3 of no static members.
    assert group.rebalance_timeout_ms == (10_000 if version == 0 else 30_000)
    assert (group.static_member("i") is not None) == (version >= 3)
    assert group.state_timestamp_ms == (5 if version >= 2 else -1)
    assert group.is_subscribed("flights")
    assert not group.is_subscribed("planes")


def test_what_is_loaded_is_what_was_written() -> None:
    coordinator = Coordinator()
    stable(coordinator, 3)
    before = coordinator.group
    coordinator.fail()
    after = coordinator.group
    assert before is not None
    assert after is not None
    assert after is not before
    assert after.stable_record({}, 0) == before.stable_record({}, 0)
    assert [member.assignment for member in after.members.values()] == [
        member.assignment for member in before.members.values()
    ]


def test_a_member_that_was_loaded_has_a_session_to_show_up() -> None:
    coordinator = loaded(value_of(member_of()))
    coordinator.pass_ms(9_990)
    assert not coordinator.group or not coordinator.group.is_empty()
    coordinator.pass_ms(20)
    assert coordinator.group is not None
    assert coordinator.group.is_empty()
    assert coordinator.group.generation == 8


def test_a_deleted_group_is_gone() -> None:
    coordinator = loaded(value_of())
    assert coordinator.group is not None
    coordinator.group.check_delete()
    coordinator.shard.append(coordinator.group.tombstones())
    assert coordinator.group is None
    coordinator.commit()
    coordinator.fail()
    assert coordinator.group is None


def refusal(check: Any, *arguments: Any, **keywords: Any) -> ErrorCode:
    """The code that a check raises, or NONE."""
    try:
        check(*arguments, **keywords)
    except KafkaError as error:
        return error.code
    return ErrorCode.NONE


def commit_error(
    group: ClassicGroup, member_id: str, generation: int, instance_id: str | None = None, *, transactional: bool = False
) -> ErrorCode:
    return refusal(
        group.check_offset_commit, member_id, instance_id, generation, api_version=9, transactional=transactional
    )


def test_who_may_commit() -> None:
    coordinator = Coordinator()
    group = coordinator.shard.classic.get_or_create(GROUP)
    assert isinstance(group, ClassicGroup)
    assert commit_error(group, "", -1) == ErrorCode.NONE
    (member_id,) = stable(coordinator)
    assert commit_error(group, member_id, 1) == ErrorCode.NONE
    assert commit_error(group, member_id, 0) == ErrorCode.ILLEGAL_GENERATION
    assert commit_error(group, member_id, -1) == ErrorCode.ILLEGAL_GENERATION
    assert commit_error(group, "stranger", 1) == ErrorCode.UNKNOWN_MEMBER_ID
    assert commit_error(group, member_id, 1, "i") == ErrorCode.UNKNOWN_MEMBER_ID
    assert commit_error(group, "", -1) == ErrorCode.UNKNOWN_MEMBER_ID
    assert commit_error(group, "", -1, transactional=True) == ErrorCode.NONE
    coordinator.call("join_group", join_request(), version=3)
    assert commit_error(group, member_id, 1) == ErrorCode.NONE
    coordinator.call("join_group", join_request(member_id), version=3)
    assert commit_error(group, member_id, 2) == ErrorCode.REBALANCE_IN_PROGRESS
    assert commit_error(group, member_id, 2, transactional=True) == ErrorCode.NONE
    group.close()
    assert commit_error(group, member_id, 2) == ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert refusal(group.check_offset_fetch, None, -1) == ErrorCode.GROUP_ID_NOT_FOUND
    assert refusal(group.check_offset_delete) == ErrorCode.GROUP_ID_NOT_FOUND
    assert refusal(group.check_delete) == ErrorCode.GROUP_ID_NOT_FOUND


@pytest.mark.parametrize(("protocol_type", "code"), [("consumer", 0), ("connect", ErrorCode.NON_EMPTY_GROUP)])
def test_what_may_be_deleted_beside_members(protocol_type: str, code: int) -> None:
    coordinator = Coordinator()
    stable(coordinator, protocol_type=protocol_type)
    group = coordinator.group
    assert group is not None
    assert refusal(group.check_offset_delete) == code
    assert refusal(group.check_delete) == ErrorCode.NON_EMPTY_GROUP
    assert refusal(group.check_offset_fetch, None, -1) == ErrorCode.NONE


@pytest.mark.parametrize("metadata", [b"", b"\0", b"\xff\xff\0\0\0\0", b"\0\0\x7f\xff\xff\xff", SUBSCRIPTION[:9]])
def test_consumers_that_cannot_be_understood_may_read_anything(metadata: bytes) -> None:
    group = loaded(value_of(member_of(subscription=metadata))).group
    assert group is not None
    assert group.is_subscribed("whatever")
    assert group.offset_expiry() is None


def test_what_follows_the_topics_is_not_read() -> None:
    later = b"\0\x09" + SUBSCRIPTION[2:] + b"more of a later version"
    group = loaded(value_of(member_of(subscription=later))).group
    assert group is not None
    assert group.is_subscribed("flights")
    assert not group.is_subscribed("whatever")


def test_others_than_consumers_subscribe_to_nothing() -> None:
    coordinator = Coordinator()
    stable(coordinator, protocol_type="connect")
    assert coordinator.group is not None
    assert not coordinator.group.is_subscribed("flights")
    assert coordinator.group.offset_expiry() is None


def test_when_offsets_begin_to_expire() -> None:
    coordinator = Coordinator()
    simple = coordinator.shard.classic.get_or_create(GROUP)
    expiry = simple.offset_expiry()
    assert expiry is not None
    assert expiry.base_timestamp_ms(42) == 42
    (member_id,) = stable(coordinator)
    assert coordinator.group is not None
    expiry = coordinator.group.offset_expiry()
    assert expiry is not None
    assert expiry.base_timestamp_ms(42) == 42
    coordinator.call("leave_group", leave_request((member_id, None)))
    expiry = coordinator.group.offset_expiry()
    assert expiry is not None
    assert expiry.base_timestamp_ms(42) == coordinator.now_ms
    # Before version 2 a record does not say when the group was emptied.
    old = loaded(value_of(), version=1).group
    assert old is not None
    expiry = old.offset_expiry()
    assert expiry is not None
    assert expiry.base_timestamp_ms(42) == 42


def test_ids_given_out_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joins, "PENDING_MEMBERS_MAX", 3)
    coordinator = Coordinator()
    numbers = [coordinator.call("join_group", join_request()) for _ in range(5)]
    ids = [coordinator.answers[number].member_id for number in numbers]
    assert coordinator.group is not None
    assert list(coordinator.group.pending) == ids[2:]
    lost = coordinator.call("join_group", join_request(ids[0]))
    assert coordinator.answers[lost].error_code == ErrorCode.UNKNOWN_MEMBER_ID
    coordinator.call("join_group", join_request(ids[4]))
    assert list(coordinator.group.members) == [ids[4]]


def test_what_a_member_brings_is_bounded() -> None:
    coordinator = Coordinator()
    large = bytes(joins.PROTOCOLS_SIZE_BYTES_MAX)
    number = coordinator.call("join_group", join_request(protocols=[("range", large)]))
    assert coordinator.answers[number].error_code == ErrorCode.UNKNOWN_SERVER_ERROR
    assert coordinator.group is None
    long = "é" * 40_000
    for request in (
        join_request(group_id=long),
        join_request(instance_id=long),
        join_request(protocol_type=long),
        join_request(protocols=[(long, b"")]),
    ):
        number = coordinator.call("join_group", request)
        assert coordinator.answers[number].error_code == ErrorCode.INVALID_REQUEST
    assert not coordinator.shard.groups
    number = coordinator.call("join_group", join_request(), client_id="c" * 32_767)
    assert len(coordinator.answers[number].member_id) == joins.ID_PREFIX_CHARS_MAX + 37


def test_an_assignment_too_large_for_a_batch_fails_alone() -> None:
    coordinator = Coordinator()
    first, second = stable(coordinator, 2)
    for member_id in (first, second):
        coordinator.call("join_group", join_request(member_id), version=3)
    waiting = coordinator.call("sync_group", sync_request(second, 2))
    large = [(first, bytes(600_000)), (second, bytes(600_000))]
    refused = coordinator.call("sync_group", sync_request(first, 2, large))
    codes = {coordinator.answers[number].error_code for number in (waiting, refused)}
    assert codes == {ErrorCode.UNKNOWN_SERVER_ERROR}
    number = coordinator.call("heartbeat", heartbeat_request(first, 2))
    assert coordinator.answers[number].error_code == ErrorCode.REBALANCE_IN_PROGRESS
    coordinator.fail()
    assert coordinator.group is not None
    assert coordinator.group.generation == 1
    assert coordinator.group.members[first].assignment == b"part of " + first.encode()


def test_a_static_member_too_large_for_a_batch_leaves_its_former_self() -> None:
    coordinator = Coordinator()
    filler = [("range", bytes(500_000))]
    numbers = [
        coordinator.call("join_group", join_request(instance_id=instance, protocols=filler)) for instance in ("i", "j")
    ]
    coordinator.pass_ms(6_000)
    first = coordinator.answers[numbers[0]]
    coordinator.call("sync_group", sync_request(first.member_id, 1, instance_id="i"))
    number = coordinator.call("join_group", join_request(instance_id="i", protocols=[("range", bytes(900_000))]))
    assert coordinator.answers[number].error_code == ErrorCode.UNKNOWN_SERVER_ERROR
    number = coordinator.call("heartbeat", heartbeat_request(first.member_id, 1, instance_id="i"))
    assert coordinator.answers[number].error_code == ErrorCode.NONE


def test_old_versions_of_leave_group_name_one() -> None:
    coordinator = Coordinator()
    (member_id,) = stable(coordinator)
    codes = []
    for leaving in ("stranger", member_id, member_id):
        request = LeaveGroupRequest(group_id=GROUP, member_id=leaving)
        answer = coordinator.answers[coordinator.call("leave_group", request, version=2)]
        codes.append(answer.error_code)
        assert answer.members == []
    assert codes == [ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.NONE, ErrorCode.UNKNOWN_MEMBER_ID]


def test_a_commit_is_a_sign_of_life() -> None:
    coordinator = Coordinator()
    (member_id,) = stable(coordinator)
    group = coordinator.group
    assert group is not None
    for _ in range(5):
        coordinator.pass_ms(9_000)
        coordinator.shard.classic.extend_session(group, member_id, coordinator.now_ms)
    assert list(group.members) == [member_id]
    coordinator.pass_ms(10_010)
    assert group.is_empty()


def test_a_group_that_is_released_answers_whoever_waits() -> None:
    coordinator = Coordinator()
    (member_id,) = stable(coordinator)
    waiting = coordinator.call("join_group", join_request(), version=3)
    group = coordinator.group
    assert group is not None
    coordinator.shard.classic.release(group, ErrorCode.REBALANCE_IN_PROGRESS)
    assert coordinator.answers[waiting].error_code == ErrorCode.REBALANCE_IN_PROGRESS
    assert group.state is ClassicState.DEAD
    coordinator.shard.append([(KEY, None)])
    coordinator.pass_ms(1_000_000)
    assert coordinator.group is None
    number = coordinator.call("heartbeat", heartbeat_request(member_id, 1))
    assert coordinator.answers[number].error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_group_made_of_members_goes_on() -> None:
    coordinator = Coordinator()
    coordinator.shard.append([(KEY, value_of(member_of()))])
    coordinator.commit()
    group = coordinator.group
    assert group is not None
    speaks = {"m": (("range", SUBSCRIPTION), ("sticky", SUBSCRIPTION))}
    coordinator.shard.classic.resume(group, coordinator.now_ms, protocols=speaks, rebalance_because="it moved")
    assert group.state is ClassicState.PREPARING_REBALANCE
    assert group.speaks("consumer", ["sticky"])
    number = coordinator.call("join_group", join_request("m", protocols=speaks["m"]))
    assert coordinator.answers[number].generation_id == 8


def test_an_error_of_describe_depends_on_the_version() -> None:
    coordinator = Coordinator()
    old = coordinator.shard.classic.describe_group("nothing", Caller("c", HOST, 5))
    new = coordinator.shard.classic.describe_group("nothing", Caller("c", HOST, 6))
    assert (old.error_code, old.group_state) == (ErrorCode.NONE, "Dead")
    assert (new.error_code, new.group_state) == (ErrorCode.GROUP_ID_NOT_FOUND, "Dead")


def test_a_heartbeat_sets_no_timer() -> None:
    wheel = TimerWheel()
    expired: list[int] = []
    session = Session(wheel, expired.append)
    session.extend(0, 45_000)
    assert wheel.next_deadline_ms == TIMER_AHEAD_MS_MAX
    for now_ms in range(0, 30_000, 100):
        wheel.advance(now_ms)
        session.extend(now_ms, 45_000)
    wheel.advance(74_890)
    assert not expired
    wheel.advance(74_900)
    assert expired == [74_900]
    session.extend(80_000, 45_000)
    session.extend(80_000, 1_000)
    wheel.advance(81_000)
    assert expired == [74_900, 81_000]
    session.extend(90_000, 1_000)
    session.cancel()
    wheel.advance(200_000)
    assert len(expired) == 2


def calls_to_settle(count: int) -> int:
    """How many function calls a rebalance of so many members takes, from the first join to the last sync."""
    coordinator = Coordinator(replace(CONFIGS, classic_members_max=10_000))
    calls = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    gc.collect()
    sys.setprofile(note)
    try:
        stable(coordinator, count)
    finally:
        sys.setprofile(None)
    return calls


def test_a_rebalance_costs_each_member_the_same() -> None:
    few, many = calls_to_settle(100), calls_to_settle(800)
    assert many < 8 * few * 1.3, f"{few} calls for 100 members, {many} for 800"


def test_encoded_as_kafka_does() -> None:
    """The record of an empty group, byte for byte as Apache Kafka 4.3 writes it."""
    value = ClassicGroup(GROUP).empty_record(0, 1)
    assert encode_key(KEY) == b"\0\2" + b"\0\1g"
    assert encode_value(KEY, value) == b"\0\3" + b"\0\0" + bytes(4) + b"\xff\xff" * 2 + bytes(7) + b"\1" + bytes(4)


def test_a_load_takes_what_the_last_record_says_of_a_member() -> None:
    coordinator = Coordinator()
    number = coordinator.call("join_group", join_request(protocols=[("range", b"old")]), version=3)
    coordinator.pass_ms(3_000)
    joined = coordinator.answers[number]
    coordinator.call("sync_group", sync_request(joined.member_id, joined.generation_id))
    again = join_request(joined.member_id, protocols=[("sticky", b"new")], session_ms=20_000, rebalance_ms=70_000)
    # One protocol after the other: there must always be one that it spoke before.
    number = coordinator.call(
        "join_group", join_request(joined.member_id, protocols=[("range", b"o"), ("sticky", b"n")])
    )
    generation = coordinator.answers[number].generation_id
    coordinator.call("sync_group", sync_request(joined.member_id, generation))
    number = coordinator.call("join_group", again)
    generation = coordinator.answers[number].generation_id
    coordinator.call("sync_group", sync_request(joined.member_id, generation))
    coordinator.fail()
    group = coordinator.group
    assert group is not None
    member = group.members[joined.member_id]
    assert (group.protocol_name, member.metadata("sticky")) == ("sticky", b"new")
    assert (member.session_timeout_ms, member.rebalance_timeout_ms) == (20_000, 70_000)
    assert group.speaks("consumer", ["sticky"])


def test_a_session_may_end_before_the_last_one_has_begun() -> None:
    """A load resumes member by member, and time does not wait for it."""
    coordinator = loaded(value_of(*(member_of(name) for name in ("leader", "second", "last"))))
    coordinator.shard.close()
    shard = coordinator.shard = coordinator.replayed()
    resuming = shard.resume(coordinator.now_ms)
    next(resuming)
    next(resuming)
    coordinator.pass_ms(20_000)
    assert coordinator.group is not None
    assert list(coordinator.group.members) == ["last"]
    for _ in resuming:
        pass
    assert shard.state is ShardState.ACTIVE
    coordinator.pass_ms(600_000)
    assert not coordinator.group.members
