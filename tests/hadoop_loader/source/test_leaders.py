"""Many partitions asked at once: one that does not answer keeps nothing from the others."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from millstream.core.client import TopicPartition
from millstream.core.wire import ErrorCode, KafkaError
from millstream.hadoop_loader.source.leaders import Asked, ask_leaders

TPS = [TopicPartition("t", number) for number in range(4)]
Row = tuple[TopicPartition, int, int]


class Brokers:
    """A cluster whose leaders and answers a test writes down; stands in for a Client."""

    def __init__(self, leaders: dict[TopicPartition, int | None], away: frozenset[int] = frozenset()) -> None:
        self.leaders = leaders
        self.away = away
        self.asked: list[tuple[int, list[TopicPartition]]] = []
        self.metadata_calls = 0
        self.cluster = SimpleNamespace(leader=self._leader)
        self.backoff = SimpleNamespace(pause_s=lambda failures: 0.01)
        # What each partition answers, in order; the last one again and again.
        self.codes: dict[TopicPartition, list[ErrorCode]] = {}

    def _leader(self, tp: TopicPartition) -> int:
        leader = self.leaders[tp]
        if leader is None:
            raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE, f"{tp} has no leader now")
        return leader

    async def metadata(self, topics: set[str], *, timeout_ms: int) -> None:
        self.metadata_calls += 1

    async def connection(self, node: int) -> Any:
        if node in self.away:
            raise KafkaError(ErrorCode.NETWORK_EXCEPTION, f"broker {node} is away")

        async def request(message: list[TopicPartition], *, timeout_s: float) -> list[Row]:
            self.asked.append((node, message))
            rows: list[Row] = []
            for tp in message:
                codes = self.codes.get(tp, [ErrorCode.NONE])
                rows.append((tp, codes.pop(0) if len(codes) > 1 else codes[0], 100 + tp.partition))
            return rows

        return SimpleNamespace(request=request)


async def ask(brokers: Any, wait_s: float = 0.1) -> Asked[int]:
    def answers(response: list[Row]) -> Iterator[Row]:
        yield from response

    return await ask_leaders(brokers, TPS, list, answers, timeout_s=5, wait_s=wait_s)


async def test_one_request_for_each_leader() -> None:
    brokers = Brokers({TPS[0]: 1, TPS[1]: 2, TPS[2]: 1, TPS[3]: 2})
    asked = await ask(brokers)
    assert asked.found == {tp: 100 + tp.partition for tp in TPS}
    assert asked.errors == {}
    assert sorted(brokers.asked) == [(1, [TPS[0], TPS[2]]), (2, [TPS[1], TPS[3]])]
    assert brokers.metadata_calls == 0


async def test_those_without_an_answer_are_named_and_the_others_found() -> None:
    brokers = Brokers({TPS[0]: 1, TPS[1]: None, TPS[2]: 9, TPS[3]: 1}, away=frozenset({9}))
    brokers.codes[TPS[3]] = [ErrorCode.TOPIC_AUTHORIZATION_FAILED]
    asked = await ask(brokers)
    assert asked.found == {TPS[0]: 100}
    assert {tp: error.code for tp, error in asked.errors.items()} == {
        TPS[1]: ErrorCode.LEADER_NOT_AVAILABLE,
        TPS[2]: ErrorCode.NETWORK_EXCEPTION,
        TPS[3]: ErrorCode.TOPIC_AUTHORIZATION_FAILED,
    }
    # What no retry mends is asked once; what was found is not asked for again.
    assert [tps for _, tps in brokers.asked] == [[TPS[0], TPS[3]]]
    assert brokers.metadata_calls > 1


async def test_a_leader_that_moved_is_asked_again() -> None:
    brokers = Brokers(dict.fromkeys(TPS, 1))
    brokers.codes[TPS[2]] = [ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NONE]
    asked = await ask(brokers, wait_s=30)
    assert asked.found == {tp: 100 + tp.partition for tp in TPS}
    assert asked.errors == {}
    assert [tps for _, tps in brokers.asked] == [TPS, [TPS[2]], [TPS[2]]]
