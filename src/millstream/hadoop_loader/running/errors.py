"""Why a split could not be run to its end; `is_retriable` says whether another attempt may do better."""

from __future__ import annotations


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
