"""Fetch sessions by KIP-227: what is remembered, what ends a session, who gives way."""

import random

from millstream.core.broker.fetch_codec import AskedFetch, from_message
from millstream.core.broker.fetch_sessions import FetchPlan, FetchSessions, move_to_end
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.fetch import FetchPartition, FetchRequest, FetchTopic, ForgottenTopic

EVICTION_MS = 1000


def sessions(slots: int = 3, partitions_max: int = 1000) -> FetchSessions:
    return FetchSessions(slots, EVICTION_MS, partitions_max=partitions_max, source=random.Random(1))


def request(
    session_id: int, epoch: int, offsets: dict[int, int] | None = None, forgotten: list[int] | None = None
) -> AskedFetch:
    partitions = [FetchPartition(partition=p, fetch_offset=o) for p, o in (offsets or {}).items()]
    message = FetchRequest(
        session_id=session_id,
        session_epoch=epoch,
        topics=[FetchTopic(topic="t", partitions=partitions)] if partitions else [],
        forgotten_topics_data=[ForgottenTopic(topic="t", partitions=forgotten)] if forgotten else [],
    )
    return from_message(message, 12)


def offsets_of(plan: FetchPlan) -> dict[int, int]:
    return {target.key[1]: target.fetch_offset for target in plan.targets.values()}


def test_a_session_remembers_and_takes_changes() -> None:
    cache = sessions()
    first = cache.plan(request(0, 0, {0: 10, 1: 20}), 12, 0)
    assert first.session is not None
    assert not first.incremental
    session_id = first.session.id
    assert offsets_of(cache.plan(request(session_id, 1), 12, 1)) == {0: 10, 1: 20}
    changed = cache.plan(request(session_id, 2, {1: 25, 2: 5}, forgotten=[0]), 12, 2)
    assert changed.incremental
    assert offsets_of(changed) == {1: 25, 2: 5}
    assert cache.partitions_count == 2


def test_wrong_ids_epochs_and_kinds_of_topic_names_are_refused() -> None:
    cache = sessions()
    made = cache.plan(request(0, 0, {0: 0}), 12, 0).session
    assert made is not None
    assert cache.plan(request(made.id + 1, 1), 12, 0).error is ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    assert cache.plan(request(made.id, 2), 12, 0).error is ErrorCode.INVALID_FETCH_SESSION_EPOCH
    assert cache.plan(request(made.id, 1), 13, 0).error is ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR
    assert cache.plan(request(made.id, 1), 12, 0).error is ErrorCode.NONE


def test_a_full_request_ends_the_session_it_names() -> None:
    cache = sessions()
    made = cache.plan(request(0, 0, {0: 0}), 12, 0).session
    assert made is not None
    final = cache.plan(request(made.id, -1, {0: 3}), 12, 0)
    assert (final.session, offsets_of(final)) == (None, {0: 3})
    assert len(cache) == 0
    assert cache.partitions_count == 0


def test_a_session_without_partitions_ends() -> None:
    cache = sessions()
    made = cache.plan(request(0, 0, {0: 0}), 12, 0).session
    assert made is not None
    assert cache.plan(request(made.id, 1, forgotten=[0]), 12, 0).session is None
    assert len(cache) == 0


def test_unused_sessions_give_way_and_fresh_ones_do_not() -> None:
    cache = sessions(slots=2)
    first = cache.plan(request(0, 0, {0: 0}), 12, 0).session
    second = cache.plan(request(0, 0, {0: 0}), 12, 0).session
    assert first is not None
    assert second is not None
    assert cache.plan(request(0, 0, {0: 0}), 12, EVICTION_MS).session is None
    cache.plan(request(first.id, 1), 12, EVICTION_MS)
    assert cache.plan(request(0, 0, {0: 0}), 12, EVICTION_MS + 1).session is not None
    assert cache.plan(request(second.id, 1), 12, EVICTION_MS + 1).error is ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    assert cache.plan(request(first.id, 2), 12, EVICTION_MS + 1).error is ErrorCode.NONE
    assert cache.evictions_count == 1


def test_a_larger_session_takes_the_place_of_an_aged_smaller_one() -> None:
    cache = sessions(slots=1)
    made = cache.plan(request(0, 0, {0: 0}), 12, 0).session
    assert made is not None
    cache.plan(request(made.id, 1), 12, EVICTION_MS)
    assert cache.plan(request(0, 0, {0: 0}), 12, EVICTION_MS + 1).session is None
    assert cache.plan(request(0, 0, {0: 0, 1: 0}), 12, EVICTION_MS + 1).session is not None


def test_the_partitions_of_all_sessions_are_bounded() -> None:
    cache = sessions(slots=100, partitions_max=10)
    assert cache.plan(request(0, 0, dict.fromkeys(range(11), 0)), 12, 0).session is None
    made = cache.plan(request(0, 0, dict.fromkeys(range(9), 0)), 12, 0).session
    assert made is not None
    grown = cache.plan(request(made.id, 1, dict.fromkeys(range(12), 0)), 12, 0)
    assert grown.error is ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    assert cache.partitions_count == 0


def test_partitions_that_sent_records_go_behind_the_others() -> None:
    plan = sessions().plan(request(0, 0, {0: 0, 1: 0, 2: 0}), 12, 0)
    served = [key for key in plan.targets if key[1] == 0]
    move_to_end(plan.targets, served)
    assert [target.key[1] for target in plan.targets.values()] == [1, 2, 0]
