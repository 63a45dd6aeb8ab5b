"""Record batches made and read the dumb way, for tests that hold the real ones against it; shares no code with them."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from hypothesis import strategies as st

from millstream.core._kernels.interpreted import crc_of

INT64 = st.integers(-(2**63), 2**63 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
INT16 = st.integers(-(2**15), 2**15 - 1)


class RawRecord(NamedTuple):
    """A record by its deltas."""

    offset_delta: int
    timestamp_delta: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[bytes, bytes | None], ...] = ()


def varint(number: int) -> bytes:
    raw = (number << 1 if number >= 0 else (~number << 1) | 1) & (2**64 - 1)
    out = []
    while True:
        out.append(raw % 128 | (128 if raw >= 128 else 0))
        raw //= 128
        if not raw:
            return bytes(out)


def sized(content: bytes | None) -> bytes:
    return varint(-1) if content is None else varint(len(content)) + content


def raw_record(record: RawRecord) -> bytes:
    body = b"\0" + varint(record.timestamp_delta) + varint(record.offset_delta)
    body += sized(record.key) + sized(record.value) + varint(len(record.headers))
    for name, content in record.headers:
        body += sized(name) + sized(content)
    return varint(len(body)) + body


def raw_batch(payload: bytes | list[RawRecord], **fields: int) -> bytes:
    """Return a batch; `fields` replaces header fields by name, the CRC among them."""
    if isinstance(payload, list):
        fields.setdefault("count", len(payload))
        fields.setdefault("last_offset_delta", payload[-1].offset_delta if payload else 0)
        payload = b"".join(map(raw_record, payload))
    tail = struct.pack(
        ">hiqqqhii",
        fields.get("attributes", 0),
        fields.get("last_offset_delta", 0),
        fields.get("base_timestamp", 0),
        fields.get("max_timestamp", 0),
        fields.get("producer_id", -1),
        fields.get("producer_epoch", -1),
        fields.get("base_sequence", -1),
        fields.get("count", 1),
    )
    tail += payload
    return (
        struct.pack(
            ">qiibI",
            fields.get("base_offset", 0),
            fields.get("batch_length", 9 + len(tail)),
            fields.get("leader_epoch", -1),
            fields.get("magic", 2),
            fields.get("crc", crc_of(tail, 0, len(tail), 0)),
        )
        + tail
    )


def numbered(count: int, value: bytes | None = b"value", key: bytes | None = b"key") -> list[RawRecord]:
    return [RawRecord(index, index, key, value) for index in range(count)]


class DumbReader:
    """Reads varints and sized bytes from a buffer; ValueError at whatever is not there."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data, self.position = data, position

    def take(self, size: int) -> bytes:
        if size < 0 or size > len(self.data) - self.position:
            raise ValueError(size)
        self.position += size
        return self.data[self.position - size : self.position]

    def varint(self) -> int:
        raw = 0
        for group in range(10):
            byte = self.take(1)[0]
            raw += (byte % 128) << 7 * group
            if byte < 128:
                raw %= 2**64
                return -(raw + 1) // 2 if raw % 2 else raw // 2
        raise ValueError("too long")

    def sized(self, size_min: int = -1) -> tuple[int, int]:
        """Return position and size."""
        size = self.varint()
        if size < size_min:
            raise ValueError(size)
        start = self.position
        self.take(max(size, 0))
        return start, size


class DumbRecord(NamedTuple):
    """Where a record's parts lie."""

    offset_delta: int
    timestamp_delta: int
    key: tuple[int, int]
    value: tuple[int, int]
    header_position: int
    header_count: int


def dumb_records(payload: bytes, count: int) -> tuple[list[DumbRecord], str]:
    """Return the records of a payload up to the first that isn't one, and "whole", "broken" or (bytes are) "left"."""
    records: list[DumbRecord] = []
    position = 0
    for _ in range(count):
        try:
            outer = DumbReader(payload, position)
            length = outer.varint()
            start = outer.position
            outer.take(length)
            position = outer.position
            inner = DumbReader(payload[:position], start)
            inner.take(1)
            timestamp_delta, offset_delta = inner.varint(), inner.varint()
            key, value = inner.sized(), inner.sized()
            header_count = inner.varint()
            header_position = inner.position
            if header_count < 0:
                return records, "broken"
            for _ in range(header_count):
                inner.sized(0)
                inner.sized()
        except ValueError:
            return records, "broken"
        if inner.position != position:
            return records, "broken"
        records.append(DumbRecord(offset_delta, timestamp_delta, key, value, header_position, header_count))
    return records, "whole" if position == len(payload) else "left"


def wrapped(number: int) -> int:
    """Return a sum as Java has it."""
    return (number + 2**63) % 2**64 - 2**63


def dumb_row(data: bytes, position: int) -> list[int]:
    base, length, epoch, _, crc = struct.unpack_from(">qiibI", data, position)
    attributes, delta, base_timestamp, max_timestamp, *producer, count = struct.unpack_from(
        ">hiqqqhii", data, position + 21
    )
    return [
        position,
        length + 12,
        base,
        base + delta,
        epoch,
        attributes,
        base_timestamp,
        max_timestamp,
        *producer,
        count,
        crc,
    ]


def dumb_check(data: bytes, position: int, end: int, next_offset: int, check_crc: bool = True) -> str:
    """Return what is at `position`: "end" for a whole valid batch, else the stop reason's name."""
    if end - position < 12:
        return "truncated"
    base, length = struct.unpack_from(">qi", data, position)
    if length < 49:
        return "bad_length"
    if end - position < 17:
        return "truncated"
    if data[position + 16] != 2:
        return "bad_magic"
    if length + 12 > end - position:
        return "truncated"
    (delta,) = struct.unpack_from(">i", data, position + 23)
    if base < max(next_offset, 0) or delta < 0 or base + delta > 2**63 - 1:
        return "bad_offset"
    (crc,) = struct.unpack_from(">I", data, position + 17)
    if check_crc and crc != crc_of(data, position + 21, position + 12 + length, 0):
        return "bad_crc"
    return "end"


contents = st.one_of(st.none(), st.binary(max_size=80), st.integers(60, 300).map(bytes))
headers = st.lists(st.tuples(st.binary(max_size=5), st.none() | st.binary(max_size=5)), max_size=3).map(tuple)
deltas = st.one_of(st.integers(-5, 5), st.integers(-(2**22), 2**22), INT64)


@st.composite
def record_lists(draw: Any, *, gaps: bool = True, size_max: int = 12) -> list[RawRecord]:
    """Records with offsets from 0 up; with gaps as cleaning leaves them."""
    records: list[RawRecord] = []
    offset = 0
    for _ in range(draw(st.integers(1, size_max))):
        offset += draw(st.integers(0, 3)) if gaps else 0
        some_headers = draw(headers) if draw(st.integers(0, 3)) == 0 else ()
        records.append(RawRecord(offset, draw(deltas), draw(contents), draw(contents), some_headers))
        offset += 1
    return records


@st.composite
def logs(draw: Any, *, size_max: int = 6, codecs: bool = False, base: int = 0) -> bytes:
    """Valid batches back to back with ascending offsets, fields at their limits, and gaps between batches."""
    data, offset = b"", base
    for _ in range(draw(st.integers(0, size_max))):
        records = draw(record_lists(size_max=5))
        offset += draw(st.integers(0, 3))
        attributes = draw(st.sampled_from([0, 0, 0, 0x08, 0x10, 0x20, 0x30, *([1, 2, 3, 4] if codecs else [])]))
        data += raw_batch(
            records,
            base_offset=offset,
            leader_epoch=draw(st.integers(-1, 3)),
            attributes=attributes,
            base_timestamp=draw(INT64),
            max_timestamp=draw(st.integers(-1, 100) | INT64),
            producer_id=draw(st.sampled_from([-1, -1, 7]) | INT64),
            producer_epoch=draw(INT16),
            base_sequence=draw(INT32),
        )
        offset += records[-1].offset_delta + 1
    return data


@st.composite
def damaged(draw: Any, valid: Any) -> bytes:
    """Valid data with a few bytes changed, cut, or put in."""
    data = bytearray(draw(valid))
    for _ in range(draw(st.integers(0, 3))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        how = draw(st.sampled_from(["flip", "set", "cut", "insert"]))
        if how == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "set":
            data[at] = draw(st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFF]))
        elif how == "cut":
            del data[at : at + draw(st.integers(1, 20))]
        else:
            data[at:at] = draw(st.binary(min_size=1, max_size=12))
    return bytes(data)
