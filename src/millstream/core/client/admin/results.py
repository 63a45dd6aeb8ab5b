"""What the calls on many items share: errors as values, and asking the leaders of partitions, each for its own."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from millstream.core.client.client import Client
from millstream.core.client.cluster import TopicPartition
from millstream.core.wire import ErrorCode, KafkaError, error_code

T = TypeVar("T")
K = TypeVar("K")

# A topic just created is unknown to some brokers for a moment; one that is unknown for longer is a mistake.
_UNKNOWN_TOPIC_WAIT_S: Final = 1.0


def error_of(code: int, message: str | None, what: str, topic: str | None = None) -> KafkaError | None:
    """Return what an error code means as an error that says `what` failed, None for NONE."""
    if code == ErrorCode.NONE:
        return None
    known = error_code(code)
    if topic and known is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
        return KafkaError(known, f"there is no topic {topic!r}; `millstream topics list` shows those there are")
    if message and topic and topic in message:
        return KafkaError(known, message.rstrip("."))
    return KafkaError(known, f"{what}: {(message or known.sentence).rstrip('.')}")


def check(code: int, message: str | None, what: str) -> None:
    """Raise what an error code means; nothing for NONE."""
    if error := error_of(code, message, what):
        raise error


def alone(results: Mapping[K, T | KafkaError], key: K) -> T:
    """Return the one result there is, or raise its error: a call for one item is a call for many with one."""
    try:
        result = results[key]
    except KeyError:
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, f"the broker answered nothing for {key}") from None
    if isinstance(result, KafkaError):
        raise result
    return result


def by_topic(partitions: Iterable[TopicPartition]) -> dict[str, list[int]]:
    """Return the partitions' numbers by topic, as most requests want them."""
    indexes: dict[str, list[int]] = {}
    for topic, partition in partitions:
        indexes.setdefault(topic, []).append(partition)
    return indexes


async def ask_leaders(
    client: Client,
    partitions: Iterable[TopicPartition],
    ask: Callable[[int, Sequence[TopicPartition]], Awaitable[Mapping[TopicPartition, T | KafkaError]]],
    timeout_ms: int,
) -> dict[TopicPartition, T | KafkaError]:
    """Return what the leader of each partition answers, or why it does not.

    What asking again may mend is asked again until the deadline, without those that have answered.
    """
    wanted = list(dict.fromkeys(TopicPartition.of(tp) for tp in partitions))
    answered: dict[TopicPartition, T | KafkaError] = {}
    failed: dict[TopicPartition, KafkaError] = {}
    started = time.monotonic()

    def note(tp: TopicPartition, result: T | KafkaError) -> None:
        if not isinstance(result, KafkaError):
            answered[tp] = result
            return
        is_unknown = result.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        is_late = is_unknown and time.monotonic() - started > _UNKNOWN_TOPIC_WAIT_S
        if result.code.retriable and not is_late:
            failed[tp] = result
        else:
            answered[tp] = result

    async def attempt() -> None:
        failed.clear()
        rest = [tp for tp in wanted if tp not in answered]
        cluster = await client.metadata({tp.topic for tp in rest}, timeout_ms=timeout_ms)
        by_node: dict[int, list[TopicPartition]] = {}
        for tp in rest:
            try:
                by_node.setdefault(cluster.leader(tp), []).append(tp)
            except KafkaError as error:
                note(tp, error)
        for node, led in by_node.items():
            for tp, result in (await ask(node, led)).items():
                note(tp, result)
        if failed:
            raise next(iter(failed.values()))

    try:
        if wanted:
            await client.retried(attempt, timeout_ms=timeout_ms)
    except KafkaError as error:
        if error not in failed.values():
            raise
    return {tp: answered[tp] if tp in answered else failed[tp] for tp in wanted if tp in answered or tp in failed}
