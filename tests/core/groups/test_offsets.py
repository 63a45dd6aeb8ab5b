"""Committed offsets of a shard: what is answered when, what survives which end of the log, what expires."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.group_log import REFUSED, GroupLog, image_of

from millstream.core.groups.records import (
    OffsetCommitKey,
    OffsetCommitValue,
    decode_record,
    encode_key,
    encode_record,
    encode_value,
)
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.list_groups import ListGroupsRequest
from millstream.core.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from millstream.core.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from millstream.core.wire.messages.offset_fetch import OffsetFetchRequestGroup, OffsetFetchRequestTopics

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
NO_OFFSET = -1


def commit(group: str, offset: int, *, partition: int = 0, topic: str = "t", text: str | None = "") -> Any:
    data = OffsetCommitRequestPartition(
        partition_index=partition, committed_offset=offset, committed_leader_epoch=3, committed_metadata=text
    )
    return OffsetCommitRequest(group_id=group, topics=[OffsetCommitRequestTopic(name=topic, partitions=[data])])


def asked(group: str, partitions: Sequence[int] | None = (0,), *, stable: bool = False) -> Any:
    topics = None
    if partitions is not None:
        topics = [OffsetFetchRequestTopics(name="t", partition_indexes=list(partitions))]
    return OffsetFetchRequestGroup(group_id=group, topics=topics), stable


def forget(group: str, partition: int = 0) -> Any:
    topic = OffsetDeleteRequestTopic(name="t", partitions=[OffsetDeleteRequestPartition(partition_index=partition)])
    return OffsetDeleteRequest(group_id=group, topics=[topic])


def offsets(answer: Any) -> dict[tuple[str, int], int]:
    return {(topic.name, p.partition_index): p.committed_offset for topic in answer.topics for p in topic.partitions}


def committed(log: GroupLog, group: str) -> dict[tuple[str, int], int]:
    return offsets(log.answer("offset_fetch", asked(group, None)))


def expire(log: GroupLog) -> None:
    for _ in log.shard.expire_offsets(log.now_ms):
        pass
    log.commit()


def transactional(group: str, offset: int, partition: int = 0) -> list[tuple[bytes, bytes | None]]:
    key = OffsetCommitKey(group=group, topic="t", partition=partition)
    return [encode_record(key, OffsetCommitValue(offset=offset, metadata="", commit_timestamp=1))]


def test_what_was_committed_is_fetched_with_all_that_came_along() -> None:
    log = GroupLog()
    log.answer("offset_commit", commit("g", 42, partition=3, text="läuft"))
    log.fail()
    (partition,) = log.answer("offset_fetch", asked("g", [3])).topics[0].partitions
    assert (partition.committed_offset, partition.committed_leader_epoch) == (42, 3)
    assert (partition.metadata, partition.error_code) == ("läuft", ErrorCode.NONE)


def test_an_answer_waits_until_what_it_shows_is_committed() -> None:
    log = GroupLog()
    log.answer("offset_commit", commit("g", 1))
    writing = log.ask("offset_commit", commit("g", 2))
    reading = log.ask("offset_fetch", asked("g"))
    listing = log.ask("list_groups", ListGroupsRequest())
    deleting = log.ask("delete_group", "nobody")
    assert not {writing, reading, listing, deleting} & set(log.answers)
    log.commit()
    assert offsets(log.answers[reading]) == {("t", 0): 2}
    assert log.answers[writing].topics[0].partitions[0].error_code == ErrorCode.NONE
    assert [group.group_id for group in log.answers[listing]] == ["g"]
    assert log.answers[deleting] == ErrorCode.GROUP_ID_NOT_FOUND


def test_answers_leave_with_the_append_that_they_wait_for() -> None:
    log = GroupLog()
    replies = [log.ask("offset_commit", commit("g", offset)) for offset in range(3)]
    log.commit(1)
    assert set(log.answers) == {replies[0]}
    log.commit()
    assert set(log.answers) == set(replies)


def test_a_failed_append_takes_back_what_it_changed() -> None:
    log = GroupLog()
    log.answer("offset_commit", commit("g", 1))
    lost = log.ask("offset_commit", commit("g", 2))
    reading = log.ask("offset_fetch", asked("g"))
    log.fail()
    assert (log.answers[lost], log.answers[reading]) == (REFUSED, REFUSED)
    assert committed(log, "g") == {("t", 0): 1}


def test_who_resigned_emits_nothing() -> None:
    log = GroupLog()
    shard = log.shard
    log.ask("offset_commit", commit("g", 1))
    log.revoke()
    shard.handle_committed(1)
    log.ask("offset_commit", commit("g", 2))
    assert log.appended == []
    assert set(log.answers.values()) == {REFUSED}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["g", "h"]),
            st.sampled_from(["t", "s"]),
            st.dictionaries(st.integers(0, 2), st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(-1, 2**31 - 1))),
            st.sampled_from([-1, -1, -1, 0]),
        ),
        max_size=10,
    )
)
def test_rows_are_stored_as_messages_are(
    commits: list[tuple[str, str, dict[int, tuple[int, int]], int]],
) -> None:
    by_message, by_rows = (GroupLog(topics={"t": 3, "s": 3}) for _ in range(2))
    for group, topic, rows, generation in commits:
        partitions = [
            OffsetCommitRequestPartition(partition_index=index, committed_offset=offset, committed_leader_epoch=epoch)
            for index, (offset, epoch) in rows.items()
        ]
        request = OffsetCommitRequest(
            group_id=group,
            generation_id_or_member_epoch=generation,
            topics=[OffsetCommitRequestTopic(name=topic, partitions=partitions)],
        )
        for log in (by_message, by_rows):
            log.now_ms += 10
        by_message.answer("offset_commit", request)
        by_rows.ask_rows(request, "stored")
        by_rows.commit()
    assert by_message.records == by_rows.records
    assert len(by_message.answers) == len(by_rows.answers)
    for group in ("g", "h"):
        kept = committed(by_rows, group)
        assert kept == committed(by_message, group)
        by_rows.fail()
        assert committed(by_rows, group) == kept


@pytest.mark.parametrize("seed", range(20))
def test_a_log_that_delays_fails_and_is_revoked_loses_no_acknowledged_commit(seed: int) -> None:
    """Whatever is answered without an error is in the log; a fetch never shows what a later load does not."""
    chance = random.Random(seed)
    log = GroupLog()
    acknowledged: dict[tuple[str, int], int] = {}
    asked_for: dict[int, tuple[str, int, int]] = {}
    shown: dict[int, tuple[str, dict[tuple[str, int], int]]] = {}
    for number in range(300):
        group, partition = f"g{chance.randrange(3)}", chance.randrange(3)
        match chance.randrange(6):
            case 0:
                reply = log.ask("offset_commit", commit(group, number, partition=partition))
                asked_for[reply] = (group, partition, number)
            case 1:
                reply = log.ask_rows(commit(group, number, partition=partition), "stored")
                asked_for[reply] = (group, partition, number)
            case 2:
                reply = log.ask("offset_fetch", asked(group, None))
                shown[reply] = (group, dict(acknowledged))
            case 3:
                log.commit(chance.randrange(1, 4))
            case 4:
                log.commit()
            case _:
                if not chance.randrange(5):
                    log.fail()
        for reply, answer in log.answers.items():
            if reply in asked_for and answer != REFUSED:
                group, partition, offset = asked_for.pop(reply)
                acknowledged[group, partition] = max(offset, acknowledged.get((group, partition), 0))
            if reply in shown and answer != REFUSED:
                group, known = shown.pop(reply)
                seen = {(group, index): offset for (_, index), offset in offsets(answer).items()}
                for key, offset in known.items():
                    if key[0] == group:
                        assert seen[key] >= offset, f"seed {seed}, step {number}: {seen} does not show {known}"
                for (_, index), offset in offsets(answer).items():
                    # What is shown is committed, so it holds from now on.
                    acknowledged[group, index] = max(offset, acknowledged.get((group, index), 0))
    log.fail()
    for (group, partition), offset in acknowledged.items():
        assert committed(log, group)["t", partition] >= offset, f"seed {seed}"


def test_metadata_is_limited_for_each_partition_and_counted_as_java_counts() -> None:
    log = GroupLog({"offset.metadata.max.bytes": "4"})
    codes = {
        text: log.answer("offset_commit", commit("g", 1, text=text)).topics[0].partitions[0].error_code
        for text in ("1234", "12345", "𝄞𝄞", "𝄞𝄞x", "", None)
    }
    too_large = ErrorCode.OFFSET_METADATA_TOO_LARGE
    assert codes == {"1234": 0, "12345": too_large, "𝄞𝄞": 0, "𝄞𝄞x": too_large, "": 0, None: 0}


def test_offsets_that_do_not_fit_into_the_log_change_nothing() -> None:
    log = GroupLog({"offset.metadata.max.bytes": "2000000"})
    too_many = commit("g", 1, text="x" * 30_000)
    too_many.topics[0].partitions *= 40
    too_long = commit("g", 1, text="x" * 33_000)
    for request in (too_many, too_long):
        assert log.answer("offset_commit", request) == ErrorCode.UNKNOWN_SERVER_ERROR
    assert (log.appended, log.shard.groups) == ([], {})


def test_a_deleted_offset_and_a_deleted_group_stay_deleted() -> None:
    log = GroupLog()
    for partition in range(3):
        log.answer("offset_commit", commit("g", 5, partition=partition))
    log.answer("offset_delete", forget("g", 1))
    log.fail()
    assert committed(log, "g") == {("t", 0): 5, ("t", 2): 5}
    assert log.answer("delete_group", "g") == ErrorCode.NONE
    assert log.answer("delete_group", "g") == ErrorCode.GROUP_ID_NOT_FOUND
    log.fail()
    assert (log.shard.groups, log.shard.offsets.count) == ({}, 0)


def test_the_offsets_of_a_deleted_topic_go() -> None:
    log = GroupLog(topics={"t": 2, "u": 1})
    log.answer("offset_commit", commit("g", 5))
    log.answer("offset_commit", commit("g", 6, topic="u"))
    log.shard.handle_image(image_of({"u": 1}, version=2), log.now_ms)
    log.commit()
    assert committed(log, "g") == {("u", 0): 6}


def test_offsets_of_groups_with_long_names_go_in_as_many_batches_as_they_need() -> None:
    name = "g" * 30_000
    log = GroupLog({"offsets.retention.minutes": "60"}, topics={"t": 100, "u": 100})
    for topic in "tu":
        for partition in range(100):
            log.answer("offset_commit", commit(name, 5, partition=partition, topic=topic))
    log.shard.handle_image(image_of({"u": 100}, version=2), log.now_ms)
    log.commit()
    assert len(committed(log, name)) == 100
    assert log.answer("delete_group", name) == ErrorCode.NONE
    assert (log.shard.groups, log.shard.offsets.count) == ({}, 0)
    log.fail()
    assert (log.shard.groups, log.shard.offsets.count) == ({}, 0)


def test_offsets_that_cannot_be_deleted_hold_no_others_back() -> None:
    name = "g" * 30_000
    log = GroupLog({"offsets.retention.minutes": "60"}, topics={"t": 1})
    for group in (name, "other"):
        log.answer("offset_commit", commit(group, 5))
    # An operator has made the topic's max.message.bytes smaller since.
    log.shard.append_size_bytes_max = 20_000
    log.now_ms += HOUR_MS
    expire(log)
    assert list(log.shard.groups) == [name]
    log.shard.handle_image(image_of({}, version=2), log.now_ms)
    assert committed(log, name) == {("t", 0): 5}


# Expiry (KIP-211)


def test_offsets_of_a_simple_consumer_expire_with_their_commit_and_take_the_group_along() -> None:
    log = GroupLog({"offsets.retention.minutes": "60"})
    log.answer("offset_commit", commit("g", 1))
    log.now_ms += HOUR_MS // 2
    log.answer("offset_commit", commit("g", 2, partition=1))
    log.now_ms += HOUR_MS // 2 - 1
    expire(log)
    assert committed(log, "g") == {("t", 0): 1, ("t", 1): 2}
    log.now_ms += 1
    expire(log)
    assert committed(log, "g") == {("t", 1): 2}
    log.now_ms += HOUR_MS
    expire(log)
    assert log.shard.groups == {}
    log.fail()
    assert log.shard.groups == {}


def test_a_retention_of_the_clients_own_ends_when_it_said() -> None:
    log = GroupLog()
    request = commit("g", 1)
    request.retention_time_ms = 5_000
    log.answer("offset_commit", request, api_version=4)
    (record,) = [(key, value) for key, value, _ in log.records]
    assert record[1][:2] == b"\x00\x01"
    log.fail()
    log.now_ms += 4_999
    expire(log)
    assert committed(log, "g") == {("t", 0): 1}
    log.now_ms += 1
    expire(log)
    assert log.shard.groups == {}


def test_an_offset_that_a_transaction_may_still_replace_does_not_expire() -> None:
    log = GroupLog()
    log.answer("offset_commit", commit("g", 1))
    log.write_transactional(7, transactional("g", 9))
    log.load()
    log.now_ms += 30 * DAY_MS
    expire(log)
    assert committed(log, "g") == {("t", 0): 1}


# Transactions, as an adopted log holds them


def test_a_transaction_counts_with_its_marker() -> None:
    log = GroupLog()
    log.answer("offset_commit", commit("g", 1))
    log.write_transactional(7, transactional("g", 9) + transactional("g", 10, partition=1))
    log.load()
    assert committed(log, "g") == {("t", 0): 1}
    unstable = log.answer("offset_fetch", asked("g", [0, 1, 2], stable=True)).topics[0].partitions
    assert [each.error_code for each in unstable] == [ErrorCode.UNSTABLE_OFFSET_COMMIT] * 2 + [ErrorCode.NONE]
    assert [each.committed_offset for each in unstable] == [NO_OFFSET] * 3
    log.write_marker(7, committed=True)
    log.load()
    assert committed(log, "g") == {("t", 0): 9, ("t", 1): 10}
    stable = log.answer("offset_fetch", asked("g", [0, 1], stable=True)).topics[0].partitions
    assert [each.committed_offset for each in stable] == [9, 10]


def test_an_aborted_transaction_never_counts() -> None:
    log = GroupLog()
    log.write_transactional(7, transactional("g", 9))
    log.write_marker(7, committed=False)
    log.load()
    assert committed(log, "g") == {}
    assert log.answer("offset_fetch", asked("g", stable=True)).topics[0].partitions[0].error_code == ErrorCode.NONE


def test_what_was_committed_behind_a_transaction_is_later_than_it() -> None:
    log = GroupLog()
    log.write_transactional(7, transactional("g", 9))
    log.load()
    log.answer("offset_commit", commit("g", 5))
    log.write_marker(7, committed=True)
    log.load()
    assert committed(log, "g") == {("t", 0): 5}


def test_a_tombstone_ends_what_is_pending_too() -> None:
    log = GroupLog()
    log.write_transactional(7, transactional("g", 9) + transactional("g", 10, partition=1))
    log.load()
    log.answer("offset_delete", forget("g"))
    log.write_marker(7, committed=True)
    log.load()
    assert committed(log, "g") == {("t", 1): 10}
    log.answer("delete_group", "g")
    assert log.shard.offsets.pending_of_group("g") == {}


@pytest.mark.parametrize("group", ["g", "gr\u00fc\u00dfe" * 100])
@pytest.mark.parametrize(("metadata", "expire_timestamp"), [("", -1), ("text", -1), ("", 9), ("text", 9)])
def test_the_quick_bytes_of_an_offset_are_those_of_its_declaration(
    group: str, metadata: str, expire_timestamp: int
) -> None:
    for offset, leader_epoch, commit_timestamp in ((0, -1, 0), (2**63 - 1, 2**31 - 1, 2**63 - 1), (-1, 0, -1)):
        key = OffsetCommitKey(group=group, topic="t", partition=2**31 - 1)
        value = OffsetCommitValue(
            offset=offset,
            leader_epoch=leader_epoch,
            metadata=metadata,
            commit_timestamp=commit_timestamp,
            expire_timestamp=expire_timestamp,
        )
        for _ in range(2):  # made, and then remembered
            assert encode_record(key, value) == (encode_key(key), encode_value(key, value))
            assert encode_record(key, None) == (encode_key(key), None)


def test_records_of_unknown_kinds_are_left_alone() -> None:
    log = GroupLog()
    log.records += [(b"\x03\xe7whatever", b"value", -1), (b"\x03\xe7whatever", None, -1)]
    log.answer("offset_commit", commit("g", 1))
    log.load()
    assert committed(log, "g") == {("t", 0): 1}


def test_a_value_of_every_version_is_read() -> None:
    key = OffsetCommitKey(group="g", topic="t", partition=1)
    newest = bytes.fromhex("0004000000000000000500000002026d0000000000000063010010") + b"i" * 16
    older = bytes.fromhex("0000000000000000000500016d0000000000000063")
    for value in (newest, older):
        decoded = decode_record(encode_record(key, None)[0], value)
        assert decoded is not None
        assert (decoded[1].offset, decoded[1].metadata, decoded[1].commit_timestamp) == (5, "m", 99)
