"""What a consumer tells its user; each names the partition, and what can be done about it. All can be pickled."""

from __future__ import annotations

from typing import Any

from millstream.core.client.cluster import TopicPartition
from millstream.core.wire import ErrorCode, KafkaError


class PartitionError(KafkaError):
    """An error of one partition; unless its class says otherwise, it is raised by each poll until a seek, or what the
    message says, has mended it.
    """

    def __init__(self, code: ErrorCode, message: str, topic: str, partition: int, offset: int) -> None:
        super().__init__(code, message)
        self.topic = topic
        self.partition = partition
        # The position at which reading stopped.
        self.offset = offset

    @property
    def topic_partition(self) -> TopicPartition:
        """The partition."""
        return TopicPartition(self.topic, self.partition)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), dict(self.__dict__), self.args)


class RefusedPartitionError(PartitionError):
    """A broker refuses what was asked of one partition, as where a right lacks; told once, and asked again later."""

    def __init__(self, code: ErrorCode, what: str, tp: TopicPartition, offset: int) -> None:
        super().__init__(code, f"{what}: {code.sentence}", tp.topic, tp.partition, offset)


def _rebuilt(kind: type[PartitionError], fields: dict[str, Any], arguments: tuple[Any, ...]) -> PartitionError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(fields)
    return error


class CorruptBatchError(PartitionError):
    """A batch fails its CRC, is no batch, or cannot be opened; records before it were handed over.

    `offset` is the first one that cannot be read. `Consumer.step_over` goes on behind the batch, at `next_offset` where
    that is known.
    """

    def __init__(self, tp: TopicPartition, offset: int, next_offset: int | None, reason: str) -> None:
        super().__init__(
            ErrorCode.CORRUPT_MESSAGE,
            f"{tp} cannot be read at offset {offset}: {reason}; step_over goes on behind the damaged batch",
            tp.topic,
            tp.partition,
            offset,
        )
        self.next_offset = next_offset


class OffsetOutOfRangeError(PartitionError):
    """The position is not in the log any more, or not yet, and auto_offset_reset is none."""

    def __init__(self, tp: TopicPartition, offset: int) -> None:
        super().__init__(
            ErrorCode.OFFSET_OUT_OF_RANGE,
            f"offset {offset} of {tp} is not in its log and auto_offset_reset is none: seek to one that is",
            tp.topic,
            tp.partition,
            offset,
        )


class NoOffsetForPartitionError(PartitionError):
    """There is no committed offset to begin with, and auto_offset_reset is none."""

    def __init__(self, tp: TopicPartition) -> None:
        super().__init__(
            ErrorCode.OFFSET_OUT_OF_RANGE,
            f"{tp} has no committed offset and auto_offset_reset is none: seek to where reading is to begin",
            tp.topic,
            tp.partition,
            -1,
        )


class LogTruncationError(PartitionError):
    """The log was cut below the position by an unclean election (KIP-320), and auto_offset_reset is none.

    `divergent_offset` is where the log now goes on differently from what was read, None where that is not known;
    `divergent_epoch` is the leader epoch that ends there.
    """

    def __init__(
        self, tp: TopicPartition, offset: int, divergent_offset: int | None = None, divergent_epoch: int = -1
    ) -> None:
        from_where = "below it" if divergent_offset is None else f"from offset {divergent_offset} on"
        super().__init__(
            ErrorCode.OFFSET_OUT_OF_RANGE,
            f"{tp} was read up to offset {offset}, but its log has been cut and differs {from_where}: seek there",
            tp.topic,
            tp.partition,
            offset,
        )
        self.divergent_offset = divergent_offset
        self.divergent_epoch = divergent_epoch


class RefusedTopicError(KafkaError):
    """A broker refuses to say where a topic is, as where a right lacks; told with each new answer that says so."""

    def __init__(self, code: ErrorCode, topic: str) -> None:
        super().__init__(code, f"topic {topic!r}: {code.sentence}")
        self.topic = topic

    def __reduce__(self) -> tuple[Any, ...]:
        return RefusedTopicError, (self.code, self.topic)


class PinnedMemoryError(KafkaError):
    """Nothing can be fetched, since what earlier polls gave still holds all of buffer_memory."""

    def __init__(self, held_bytes: int, bound_bytes: int) -> None:
        super().__init__(
            ErrorCode.REQUEST_TIMED_OUT,
            f"records handed over earlier hold {held_bytes:,} of the {bound_bytes:,} bytes of buffer_memory: "
            "release them, or raise it",
        )
        self.held_bytes = held_bytes
        self.bound_bytes = bound_bytes

    def __reduce__(self) -> tuple[Any, ...]:
        return PinnedMemoryError, (self.held_bytes, self.bound_bytes)


class ConsumerStateError(RuntimeError):
    """A method was called that the consumer's state does not allow; the message says which and what to do."""
