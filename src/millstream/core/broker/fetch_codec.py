"""Fetch requests and answers without a message object for each partition.

What every consumer sends all the time, whatever its version and however many its partitions: entries of one size,
unpacked in one go into tuples. A request that has more to say (tags, forgotten topics, thousands of partitions) or
cannot be read goes through the codec of `core/wire`, which means the same and knows how to complain. Answers are packed
partition by partition. Tests hold both directions against the codec.

    request     replica id (to 14), max wait, min bytes, max bytes, isolation level, session id and epoch (from 7),
                topics: name (to 12) or id, partitions: index, leader epoch (from 9), OFFSET, last epoch (from 12),
                        log start (from 5), max bytes, tags (from 12)
                forgotten topics (from 7), rack (from 11), tags (from 12)
    answer      throttle, error and session id (from 7), topics: name or id, partitions: index, error, high watermark,
                last stable offset, log start (from 5), aborted transactions, preferred replica (from 11), RECORDS, tags
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from millstream.core.broker.handlers.encoded import EncodedParts
from millstream.core.wire import Buffer, ErrorCode, decoder, unsigned_varint, varint_bytes
from millstream.core.wire.messages.fetch import FetchRequest

if TYPE_CHECKING:
    from millstream.core.broker.direct_send import Part

TOPIC_IDS_FROM_VERSION: Final = 13
_SESSIONS_FROM: Final = 7
_RACK_FROM: Final = 11
_FLEXIBLE_FROM: Final = 12
_EPOCH_END_FROM: Final = 12
_REPLICA_ID_TO: Final = 14
_LOG_START_FROM: Final = 5
_LEADER_EPOCH_FROM: Final = 9

# A longer request is read by the codec, which has a bound on what a request may come to in memory.
REQUEST_SIZE_BYTES_MAX: Final = 256 * 1024
# Records up to this size are copied to what stands before them.
_JOINED_SIZE_BYTES_MAX: Final = 1024

TopicKey = str | bytes
TargetKey = tuple[TopicKey, int]
# Index, leader epoch that the client knows, offset, epoch of the last record it has, bytes to give at most.
Asked = tuple[int, int, int, int, int]


class AskedFetch(NamedTuple):
    """A Fetch request; topics by name up to version 12, by id from 13 on."""

    max_wait_ms: int
    min_bytes: int
    max_bytes: int
    isolation_level: int
    session_id: int
    session_epoch: int
    topics: Sequence[tuple[TopicKey, Sequence[Asked]]]
    forgotten: Sequence[tuple[TopicKey, Sequence[int]]]


class PartitionAnswer(NamedTuple):
    """What one partition is answered; `aborted` are (producer id, first offset), `diverging` is (epoch, end offset)."""

    key: TargetKey
    error_code: int
    high_watermark: int
    last_stable_offset: int
    log_start_offset: int
    aborted: Sequence[tuple[int, int]] | None
    records: Part
    diverging: tuple[int, int] | None = None


_new_tuple: Final = tuple.__new__  # a NamedTuple's own constructor costs twice this


class _RequestLayout:
    """One version's requests."""

    __slots__ = ("by_id", "flexible", "head", "partition", "tail", "tuples", "version")

    def __init__(self, version: int) -> None:
        self.version = version
        self.flexible = version >= _FLEXIBLE_FROM
        self.by_id = version >= TOPIC_IDS_FROM_VERSION
        self.head = struct.Struct(
            ">" + ("i" if version <= _REPLICA_ID_TO else "") + "iiib" + ("ii" if version >= _SESSIONS_FROM else "")
        )
        tuples: Callable[[Iterable[tuple[int, ...]]], list[Asked]]
        if version >= _FLEXIBLE_FROM:
            entry, tuples = ">iiqiqiB", lambda rows: [(p, e, o, last, m) for p, e, o, last, _, m, _ in rows]
        elif version >= _LEADER_EPOCH_FROM:
            entry, tuples = ">iiqqi", lambda rows: [(p, e, o, -1, m) for p, e, o, _, m in rows]
        elif version >= _LOG_START_FROM:
            entry, tuples = ">iqqi", lambda rows: [(p, -1, o, -1, m) for p, o, _, m in rows]
        else:
            entry, tuples = ">iqi", lambda rows: [(p, -1, o, -1, m) for p, o, m in rows]
        self.partition = struct.Struct(entry)
        self.tuples = tuples
        # What stands behind the topics where nothing is forgotten, no rack is named and there are no tags.
        if self.flexible:
            self.tail = b"\1\1\0"
        else:
            self.tail = b"\0" * (4 * (version >= _SESSIONS_FROM) + 2 * (version >= _RACK_FROM))


_request_layout = lru_cache(maxsize=None)(_RequestLayout)


class _UnusualError(ValueError):
    """A request that the codec has to read."""


def read_request(version: int, data: Buffer, position: int = 0) -> AskedFetch:
    """Read a request's body that goes to the end of `data`. Raises WireError."""
    if len(data) > REQUEST_SIZE_BYTES_MAX:
        return from_message(decoder(FetchRequest, version)(data, position)[0], version)
    try:
        return _read(_request_layout(version), data, position)
    except (_UnusualError, struct.error, IndexError, ValueError):
        request, _ = decoder(FetchRequest, version)(data, position)
        return from_message(request, version)


def from_message(request: FetchRequest, version: int) -> AskedFetch:
    """The same from the message."""
    by_id = version >= TOPIC_IDS_FROM_VERSION
    return AskedFetch(
        request.max_wait_ms,
        request.min_bytes,
        request.max_bytes,
        request.isolation_level,
        request.session_id,
        request.session_epoch,
        [
            (
                topic.topic_id if by_id else topic.topic,
                [
                    (p.partition, p.current_leader_epoch, p.fetch_offset, p.last_fetched_epoch, p.partition_max_bytes)
                    for p in topic.partitions
                ],
            )
            for topic in request.topics
        ],
        [(topic.topic_id if by_id else topic.topic, topic.partitions) for topic in request.forgotten_topics_data],
    )


def _read(layout: _RequestLayout, data: Buffer, position: int) -> AskedFetch:
    version = layout.version
    flexible, by_id, entry = layout.flexible, layout.by_id, layout.partition
    head = layout.head.unpack_from(data, position)
    position += layout.head.size
    topics: list[tuple[TopicKey, Sequence[Asked]]] = []
    count, position = _count(data, position, flexible)
    for _ in range(count):
        if by_id:
            key: TopicKey = bytes(data[position : position + 16])
            position += 16
        else:
            key, position = _text(data, position, flexible)
        entries, position = _count(data, position, flexible)
        end = position + entries * entry.size
        if end > len(data):
            raise _UnusualError
        rows = data[position:end]
        if flexible:
            if any(rows[entry.size - 1 :: entry.size]) or data[end]:
                raise _UnusualError
            position = end + 1
        else:
            position = end
        topics.append((key, layout.tuples(entry.iter_unpack(rows))))
    if data[position:] != layout.tail:
        _check_tail(layout, data, position)
    if version <= _REPLICA_ID_TO:
        head = head[1:]
    if version < _SESSIONS_FROM:
        head += (0, -1)
    return _new_tuple(AskedFetch, (*head, topics, ()))


def _check_tail(layout: _RequestLayout, data: Buffer, position: int) -> None:
    """A rack may be named; whatever else there is, is unusual."""
    if layout.version >= _SESSIONS_FROM:
        count, position = _count(data, position, layout.flexible)
        if count:
            raise _UnusualError
    if layout.version >= _RACK_FROM:
        _, position = _text(data, position, layout.flexible)
    if bytes(data[position:]) != (b"\0" if layout.flexible else b""):
        raise _UnusualError


def _count(data: Buffer, position: int, flexible: bool) -> tuple[int, int]:
    if not flexible:
        (count,) = _INT32.unpack_from(data, position)
        position += 4
    else:
        count = data[position]
        if count > 0x7F:
            count, position = unsigned_varint(data, position)
        else:
            position += 1
        count -= 1
    if count < 0:
        raise _UnusualError
    return count, position


def _text(data: Buffer, position: int, flexible: bool) -> tuple[str, int]:
    if flexible:
        size, position = _count(data, position, True)
    else:
        (size,) = _INT16.unpack_from(data, position)
        position += 2
    end = position + size
    if size < 0 or end > len(data):
        raise _UnusualError
    return str(data[position:end], "utf-8"), end


_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")
_EPOCH_END: Final = struct.Struct(">iq")
_ABORTED: Final = struct.Struct(">qq")


class _AnswerLayout:
    """One version's answers."""

    __slots__ = ("aborted_end", "empty", "flexible", "head", "no_aborted", "none_aborted", "partition", "preferred")

    def __init__(self, version: int) -> None:
        self.flexible = version >= _FLEXIBLE_FROM
        # Throttle time, error, session id.
        self.head = struct.Struct(">ihi" if version >= _SESSIONS_FROM else ">i")
        # Up to the log's start.
        self.partition = struct.Struct(">ihqqq" if version >= _LOG_START_FROM else ">ihqq")
        self.preferred = _INT32.pack(-1) if version >= _RACK_FROM else b""
        # Between these and the records' length, with no list of aborted transactions, and with an empty one.
        self.no_aborted = (b"\0" if self.flexible else _INT32.pack(-1)) + self.preferred
        self.none_aborted = (b"\1" if self.flexible else _INT32.pack(0)) + self.preferred
        self.aborted_end = b"\0" if self.flexible else b""
        # All of it where there are no records and nothing else to say.
        end = self.size(0) + (b"\0" if self.flexible else b"")
        self.empty = (self.no_aborted + end, self.none_aborted + end)

    def size(self, value: int) -> bytes:
        """The length of an array or of bytes."""
        if not self.flexible:
            return _INT32.pack(value)
        return bytes((value + 1,)) if value < 0x7F else varint_bytes(value + 1)

    def topic(self, key: TopicKey) -> bytes:
        """What stands before a topic's partitions."""
        if isinstance(key, bytes):
            return key
        name = key.encode()
        return self.size(len(name)) + name if self.flexible else _INT16.pack(len(name)) + name

    def aborted(self, transactions: Sequence[tuple[int, int]] | None) -> bytes:
        """The aborted transactions, and what follows up to the records' length."""
        if transactions is None:
            return self.no_aborted
        if not transactions:
            return self.none_aborted
        listed = b"".join(_ABORTED.pack(*each) + self.aborted_end for each in transactions)
        return self.size(len(transactions)) + listed + self.preferred


_answer_layout = lru_cache(maxsize=None)(_AnswerLayout)


def _by_topic(answers: Sequence[PartitionAnswer]) -> Mapping[TopicKey, Sequence[PartitionAnswer]]:
    found: dict[TopicKey, list[PartitionAnswer]] = {}
    for answer in answers:
        topic = answer[0][0]
        if topic in found:
            found[topic].append(answer)
        else:
            found[topic] = [answer]
    return found


def encode_answer(version: int, session_id: int, answers: Sequence[PartitionAnswer]) -> EncodedParts:
    """The answer's body in parts, records of some size as they are; partitions are put together by topic."""
    layout = _answer_layout(version)
    flexible = layout.flexible
    by_topic = {answers[0][0][0]: answers} if len(answers) == 1 else _by_topic(answers)
    parts: list[Part] = []
    head = layout.head.pack(0, 0, session_id) if version >= _SESSIONS_FROM else layout.head.pack(0)
    head += layout.size(len(by_topic))
    with_log_start = version >= _LOG_START_FROM
    pack = layout.partition.pack
    errors: dict[int, int] = {}
    for topic, partitions in by_topic.items():
        head += layout.topic(topic) + layout.size(len(partitions))
        for (_, index), code, high_watermark, stable, log_start, aborted, records, diverging in partitions:
            errors[code] = errors.get(code, 0) + 1
            if with_log_start:
                head += pack(index, code, high_watermark, stable, log_start)
            else:
                head += pack(index, code, high_watermark, stable)
            if not records and not aborted and diverging is None:
                head += layout.empty[aborted is not None]
                continue
            size = len(records)
            head += (layout.no_aborted if aborted is None else layout.aborted(aborted)) + layout.size(size)
            if size > _JOINED_SIZE_BYTES_MAX or not isinstance(records, bytes):
                parts += (head, records)
                head = b""
            else:
                head += records
            if flexible:
                head += b"\0" if diverging is None else b"\1\0\x0d" + _EPOCH_END.pack(*diverging) + b"\0"
        if flexible:
            head += b"\0"
    if flexible:
        head += b"\0"
    if not parts:
        return EncodedParts(head, (), errors or {ErrorCode.NONE: 1})
    if head:
        parts.append(head)
    return EncodedParts(cast("bytes", parts[0]), parts[1:], errors)
