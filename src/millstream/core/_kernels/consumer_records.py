"""The consumer's compiled part: what a fetched piece holds, and the records of located columns as objects.

`survey_batches` is the one look at what a fetch brought: which batches are whole, wanted and right, and what kinds of
them there are. `build_records` turns rows of `record_columns` into a list of ConsumerRecord. A record is an object of
its own because a caller asked for records; it keeps its offset and timestamp as plain integers and the bytes of its
headers as they came, and takes no part in garbage collection, as it can hold nothing but text and bytes.
"""

from __future__ import annotations

from typing import Any

try:
    import cython
except ModuleNotFoundError:
    from millstream.core._kernels import shim as cython

if cython.compiled:
    from cython.cimports.millstream.core._kernels.native import (
        find_bad_crc,
        load_int16,
        load_int32,
        load_int64,
        skip_sized,
    )
else:
    from millstream.core._kernels.interpreted import (
        find_bad_crc,
        load_int16,
        load_int32,
        load_int64,
        skip_sized,
    )

_HEADER_SIZE = cython.declare(cython.Py_ssize_t, 61)
_LENGTH_END = cython.declare(cython.Py_ssize_t, 12)
_MAGIC_AT = cython.declare(cython.Py_ssize_t, 16)
_INT64_MAX = cython.declare(cython.longlong, 9223372036854775807)
_CODEC_MASK = cython.declare(cython.longlong, 0x07)
_LOG_APPEND_TIME_BIT = cython.declare(cython.longlong, 0x08)
_TRANSACTIONAL_BIT = cython.declare(cython.longlong, 0x10)
_CONTROL_BIT = cython.declare(cython.longlong, 0x20)

_COMPRESSED = cython.declare(cython.int, 1)
_TRANSACTIONAL = cython.declare(cython.int, 2)
_CONTROL = cython.declare(cython.int, 4)


def survey_batches(
    data: cython.const[cython.uchar][::1], offset: cython.longlong, check_crc: cython.bint
) -> tuple[int, int, int, int, int, int, int, int]:
    """Look over what a fetch at `offset` brought; its first byte starts a batch, its last batch may be cut off.

    Returns (start, end, next_offset, leader_epoch, records, kinds, corrupt_position, size_bytes_needed).
    data[start:end] are whole batches, in order, from the one that holds `offset` on; next_offset and leader_epoch
    follow from the last of them (`offset` and -1 where there is none). records counts those of batches that aren't
    control batches. kinds: 1 for a compressed batch among them, 2 for a transactional one, 4 for a control batch.
    corrupt_position is where a batch is none, or fails its CRC, or -1. size_bytes_needed is the size of the first
    wanted batch where `data` ends inside it, else 0.
    """
    size: cython.Py_ssize_t = len(data)
    position: cython.Py_ssize_t = 0
    start: cython.Py_ssize_t = -1
    corrupt: cython.Py_ssize_t = -1
    needed: cython.longlong = 0
    next_offset: cython.longlong = offset
    expected: cython.longlong = 0
    epoch: cython.longlong = -1
    records: cython.longlong = 0
    kinds: cython.int = 0
    length: cython.longlong
    base_offset: cython.longlong
    delta: cython.longlong
    count: cython.longlong
    attributes: cython.longlong
    bad: cython.Py_ssize_t
    if size == 0:
        return 0, 0, offset, -1, 0, 0, -1, 0
    base: cython.p_const_uchar = cython.address(data[0]) if cython.compiled else data
    with cython.nogil:
        while position < size:
            if size - position < _HEADER_SIZE:
                if start < 0:
                    needed = _HEADER_SIZE
                    if size - position >= _LENGTH_END:
                        length = load_int32(base, position + 8) + _LENGTH_END
                        needed = max(length, _HEADER_SIZE)
                break
            length = load_int32(base, position + 8) + _LENGTH_END
            if length < _HEADER_SIZE or base[position + _MAGIC_AT] != 2:
                corrupt = position
                break
            if length > size - position:
                if start < 0:
                    needed = length
                break
            base_offset = load_int64(base, position)
            delta = load_int32(base, position + 23)
            if base_offset < expected or delta < 0 or base_offset > _INT64_MAX - 1 - delta:
                corrupt = position
                break
            expected = base_offset + delta + 1
            if expected > offset and start < 0:
                start = position
            position += cython.cast(cython.Py_ssize_t, length)
        if start >= 0:
            if check_crc:
                bad = find_bad_crc(base, start, position)
                if bad < position:
                    # What was made of the bytes behind it does not count: its length may be what is wrong.
                    corrupt = position = bad
            bad = start
            while bad < position:
                attributes = load_int16(base, bad + 21)
                count = load_int32(base, bad + 57)
                if attributes & _CODEC_MASK:
                    kinds |= _COMPRESSED
                if attributes & _TRANSACTIONAL_BIT:
                    kinds |= _TRANSACTIONAL
                if attributes & _CONTROL_BIT:
                    kinds |= _CONTROL
                elif count > 0:
                    records += count
                next_offset = load_int64(base, bad) + load_int32(base, bad + 23) + 1
                epoch = load_int32(base, bad + 12)
                bad += cython.cast(cython.Py_ssize_t, load_int32(base, bad + 8) + _LENGTH_END)
    if start < 0 or start == position:
        return position, position, offset, -1, 0, 0, corrupt, needed
    return start, position, next_offset, epoch, records, kinds, corrupt, 0


@cython.final
@cython.freelist(4096)
@cython.cclass
class ConsumerRecord:
    """One record as a consumer hands it over.

    `timestamp` is in milliseconds since 1970, or -1; timestamp_type is 0 where the producer set it (CreateTime) and 1
    where the broker did (LogAppendTime). `leader_epoch` is that of the leader that appended it. `key` and `value` are
    None where they are null. Immutable; equal to a record of the same contents; can be pickled.
    """

    _topic: str
    _key: bytes | None
    _value: bytes | None
    # The headers as they lie in the batch, None without any; `headers` reads them.
    _headers: bytes | None
    _offset: cython.longlong
    _timestamp: cython.longlong
    _partition: cython.int
    _leader_epoch: cython.int
    _header_count: cython.int
    _timestamp_type: cython.int

    def __init__(
        self,
        topic: Any,
        partition: Any,
        offset: Any,
        timestamp: Any = -1,
        timestamp_type: Any = 0,
        key: Any = None,
        value: Any = None,
        headers: Any = (),
        leader_epoch: Any = -1,
    ) -> None:
        """Make a record of its own, for tests and for those who pass records on; headers are pairs of str and bytes."""
        self._topic = topic
        self._partition = partition
        self._offset = offset
        self._timestamp = timestamp
        self._timestamp_type = timestamp_type
        self._key = key
        self._value = value
        self._leader_epoch = leader_epoch
        self._header_count = len(headers)
        self._headers = _encoded_headers(headers) if headers else None

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self._topic

    @property
    def partition(self) -> int:
        """The partition's number."""
        return self._partition

    @property
    def offset(self) -> int:
        """Its place in the partition."""
        return self._offset

    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970, or -1."""
        return self._timestamp

    @property
    def timestamp_type(self) -> int:
        """0: the producer's time (CreateTime); 1: the broker's (LogAppendTime)."""
        return self._timestamp_type

    @property
    def key(self) -> bytes | None:
        """The key, or None."""
        return self._key

    @property
    def value(self) -> bytes | None:
        """The value, or None: a tombstone in a compacted topic."""
        return self._value

    @property
    def leader_epoch(self) -> int:
        """The epoch of the leader that appended it (KIP-320), or -1."""
        return self._leader_epoch

    @property
    def headers(self) -> tuple[tuple[str, bytes | None], ...]:
        """Pairs of name and value, in their order; read from their bytes at each call."""
        if self._header_count == 0:
            return ()
        return _decoded_headers(self._headers or b"", self._header_count)

    def __repr__(self) -> str:
        return (
            f"ConsumerRecord({self._topic}-{self._partition}@{self._offset}, timestamp={self._timestamp}, "
            f"key={_shown(self._key)}, value={_shown(self._value)}, headers={self._header_count})"
        )

    def __eq__(self, other: object) -> bool:
        return type(other) is ConsumerRecord and _fields_of(self) == _fields_of(other)

    def __hash__(self) -> int:
        return hash((self._topic, self._partition, self._offset))

    def __reduce__(self) -> Any:
        return ConsumerRecord, _fields_of(self)


def _fields_of(record: Any) -> tuple[Any, ...]:
    return (
        record.topic,
        record.partition,
        record.offset,
        record.timestamp,
        record.timestamp_type,
        record.key,
        record.value,
        record.headers,
        record.leader_epoch,
    )


def _shown(data: Any) -> str:
    if data is None or len(data) <= 40:
        return repr(data)
    return f"{data[:37]!r}... ({len(data)} bytes)"


def _varint(number: int) -> bytes:
    raw = number << 1 if number >= 0 else (-number << 1) - 1
    out = bytearray()
    while raw > 0x7F:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    out.append(raw)
    return bytes(out)


def _encoded_headers(headers: Any) -> bytes:
    parts: list[bytes] = []
    for name, content in headers:
        named = name.encode(errors="surrogateescape")
        parts += (_varint(len(named)), named)
        parts += (_varint(-1),) if content is None else (_varint(len(content)), content)
    return b"".join(parts)


def _decoded_headers(data: bytes, count: int) -> tuple[tuple[str, bytes | None], ...]:
    """Read `count` headers; that they lie within `data` was found when the records were located."""
    found = []
    position = 0
    for _ in range(count):
        size, position = _read(data, position)
        name = data[position : position + size].decode(errors="surrogateescape")
        position += size
        size, position = _read(data, position)
        found.append((name, None if size < 0 else data[position : position + size]))
        position += max(size, 0)
    return tuple(found)


def _read(data: bytes, position: int) -> tuple[int, int]:
    raw = shift = 0
    while True:
        byte = data[position]
        position += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (raw >> 1) ^ -(raw & 1), position
        shift += 7


def build_records(
    data: cython.const[cython.uchar][::1],
    topic: str,
    partition: cython.int,
    start: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    offsets: cython.longlong[::1],
    timestamps: cython.longlong[::1],
    key_positions: cython.longlong[::1],
    key_sizes: cython.longlong[::1],
    value_positions: cython.longlong[::1],
    value_sizes: cython.longlong[::1],
    header_positions: cython.longlong[::1],
    header_counts: cython.longlong[::1],
    batch_positions: cython.longlong[::1],
) -> list[Any]:
    """Return rows start to end of located columns as ConsumerRecords; `data` is the buffer they were located in.

    Batch headers lie in `data` too, at batch_positions: they tell leader epoch and timestamp type.
    """
    size: cython.Py_ssize_t = len(data)
    capacity: cython.Py_ssize_t = min(
        len(offsets),
        len(timestamps),
        len(key_positions),
        len(key_sizes),
        len(value_positions),
        len(value_sizes),
        len(header_positions),
        len(header_counts),
        len(batch_positions),
    )
    if not 0 <= start <= end <= capacity:
        raise ValueError(f"[{start}, {end}) does not lie within columns of {capacity}")
    if start == end:
        return []
    base: cython.p_const_uchar = cython.address(data[0]) if cython.compiled else data
    records: list[Any] = [None] * (end - start)
    cursor: cython.longlong[1] = [0]
    batch_position: cython.longlong = -1
    epoch: cython.int = -1
    timestamp_type: cython.int = 0
    at: cython.Py_ssize_t
    position: cython.Py_ssize_t
    length: cython.Py_ssize_t
    left: cython.longlong
    record: ConsumerRecord
    for at in range(start, end):
        if batch_positions[at] != batch_position:
            batch_position = batch_positions[at]
            if batch_position < 0 or batch_position > size - _HEADER_SIZE:
                raise ValueError(f"no batch header lies at {batch_position} of {size} bytes")
            epoch = cython.cast(cython.int, load_int32(base, cython.cast(cython.Py_ssize_t, batch_position) + 12))
            left = load_int16(base, cython.cast(cython.Py_ssize_t, batch_position) + 21)
            timestamp_type = 1 if left & _LOG_APPEND_TIME_BIT else 0
        record = ConsumerRecord.__new__(ConsumerRecord)
        record._topic = topic
        record._partition = partition
        record._offset = offsets[at]
        record._timestamp = timestamps[at]
        record._timestamp_type = timestamp_type
        record._leader_epoch = epoch
        length = cython.cast(cython.Py_ssize_t, key_sizes[at])
        if length < 0:
            record._key = None
        else:
            position = cython.cast(cython.Py_ssize_t, key_positions[at])
            if position < 0 or length > size - position:
                raise ValueError(f"a key of {length} bytes at {position} of {size}")
            record._key = bytes(base[position : position + length])
        length = cython.cast(cython.Py_ssize_t, value_sizes[at])
        if length < 0:
            record._value = None
        else:
            position = cython.cast(cython.Py_ssize_t, value_positions[at])
            if position < 0 or length > size - position:
                raise ValueError(f"a value of {length} bytes at {position} of {size}")
            record._value = bytes(base[position : position + length])
        left = header_counts[at]
        record._header_count = cython.cast(cython.int, left)
        if left == 0:
            record._headers = None
        else:
            position = cython.cast(cython.Py_ssize_t, header_positions[at])
            cursor[0] = position
            while left > 0 and cursor[0] < size:
                skip_sized(base, cursor, size, 0)
                skip_sized(base, cursor, size, -1)
                left -= 1
            if left != 0 or position < 0 or cursor[0] > size:
                raise ValueError(f"headers at {position} leave {size} bytes")
            record._headers = bytes(base[position : cython.cast(cython.Py_ssize_t, cursor[0])])
        records[at - start] = record
    return records


def is_compiled() -> bool:
    """Whether this is the compiled kernel; `millstream doctor` tells."""
    return cython.compiled
