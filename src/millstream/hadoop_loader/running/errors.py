"""Why a split could not be run to its end; `is_retriable` says whether another attempt may do better."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from millstream.core.client.consumer import LogTruncationError

if TYPE_CHECKING:
    from millstream.core.client.cluster import TopicPartition
    from millstream.core.client.consumer import CorruptBatchError


class SplitError(Exception):
    """A split was not read to its end; nothing of it counts."""

    is_retriable = True


class SplitStoppedError(SplitError):
    """The split was told to stop."""

    is_retriable = False


class RangeGoneError(SplitError):
    """Offsets that were to be read are not there (any more): retention, or a log that was cut."""

    is_retriable = False

    def __init__(self, topic: str, partition: int, sentence: str) -> None:
        super().__init__(f"{topic}-{partition}: {sentence}")
        self.topic = topic
        self.partition = partition

    def __reduce__(self) -> tuple[object, ...]:
        sentence = str(self).partition(": ")[2]
        return RangeGoneError, (self.topic, self.partition, sentence)


class TopicRecreatedError(SplitError):
    """A topic was deleted and created again while it was read: its records may be of either."""

    is_retriable = False

    def __init__(self, topic: str) -> None:
        super().__init__(f"topic {topic!r} was deleted or created again while it was read; the next run looks anew")
        self.topic = topic

    def __reduce__(self) -> tuple[object, ...]:
        return TopicRecreatedError, (self.topic,)


class TopicUnreadableError(SplitError):
    """Records of one topic cannot be read, or not now; that says nothing of the others of its split."""

    def __init__(self, topic: str, sentence: str, is_retriable: bool = True) -> None:
        super().__init__(sentence)
        self.topic = topic
        self.is_retriable = is_retriable

    def __reduce__(self) -> tuple[object, ...]:
        return TopicUnreadableError, (self.topic, str(self), self.is_retriable)


class StalledError(SplitError):
    """Nothing came for too long, though there is something to come."""

    def __init__(self, waiting: Iterable[TopicPartition], waited_s: float) -> None:
        self._waiting = sorted(waiting)
        self._waited_s = waited_s
        names = ", ".join(map(str, self._waiting[:3]))
        super().__init__(
            f"nothing came of {names} for {waited_s:.0f} s, though there is something to come; see whether their"
            " leaders answer fetches, and raise source.timeout_s if they are only slow"
        )
        topics = {tp.topic for tp in self._waiting}
        self.topic = topics.pop() if len(topics) == 1 else None

    def __reduce__(self) -> tuple[object, ...]:
        return StalledError, (self._waiting, self._waited_s)


def unreadable(error: CorruptBatchError | LogTruncationError) -> SplitError:
    """Return what a load says of a partition that the client cannot read on: a job has other ways out than a reader."""
    if isinstance(error, LogTruncationError):
        where = "" if error.divergent_offset is None else f" from offset {error.divergent_offset} on"
        return RangeGoneError(
            error.topic,
            error.partition,
            f"its log was cut while it was read up to offset {error.offset}, and is another{where}; the next run goes"
            " by source.truncated",
        )
    behind = "" if error.next_offset is None else f" (the batch ends before offset {error.next_offset})"
    return TopicUnreadableError(
        error.topic,
        f"{error.topic_partition} is damaged at offset {error.offset}{behind}: what its leader has on disk is no whole"
        " batch; have a replica lead that is whole, or give these offsets up: `millstream topics trim"
        f" {error.topic} --partition {error.partition} --offset {error.next_offset or 'OFFSET'}` and"
        ' source.gaps = "continue"',
    )
