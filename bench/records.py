"""Rates of the record kernels against their goals: `python bench/records.py`.

Each figure is the median of several repeats over 16 MB of batches with 100-byte values and no keys; a goal that is
missed is marked.
"""

from __future__ import annotations

import random
import statistics
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from millstream.core._kernels import kernels_compiled
from millstream.core._kernels.batch_validation import walk_records
from millstream.core._kernels.compaction import filter_batches
from millstream.core._kernels.consumer_records import build_records, survey_batches
from millstream.core._kernels.crc32c import is_hardware
from millstream.core._kernels.record_accumulator import Appender, OpenBatch, RecordAccumulator
from millstream.core.log.cleaner.offset_map import OffsetMap
from millstream.core.records import (
    HEADER_SIZE,
    STATE_BATCHES,
    STATE_POSITION,
    AppendRules,
    BatchBuilder,
    Compression,
    RecordColumns,
    check_batches,
    compress,
    crc32c,
    decompress,
    index_batches,
    iter_records,
    new_index_state,
    new_rows,
    read_header,
    set_log_fields,
    trim_batches,
    validate_batch,
)
from millstream.core.records.columns import COLUMN_NAMES

DATA_BYTES = 16_000_000
REPEATS = 15
COLUMN_ROWS = 10_000
SENDS = 100_000
NOW = 1_700_000_000_000


@dataclass(frozen=True)
class Figure:
    """One line of the table: seconds per unit, and what is asked of it."""

    name: str
    seconds: float
    units: float
    unit: str  # "ns" per unit, or a rate with its scale: "M records/s", "GB/s"
    goal: float | None = None

    @property
    def value(self) -> float:
        """The figure in its unit."""
        scale = {"ns": 1e9, "us": 1e6, "M records/s": 1e6, "M batches/s": 1e6, "GB/s": 1e9, "MB/s": 1e6}[self.unit]
        return self.seconds / self.units * scale if self.unit in {"ns", "us"} else self.units / self.seconds / scale

    def __str__(self) -> str:
        if self.goal is None:
            verdict = ""
        else:
            met = self.value <= self.goal if self.unit in {"ns", "us"} else self.value >= self.goal
            sign = "<=" if self.unit in {"ns", "us"} else ">="
            verdict = f"{sign} {self.goal:g}" + ("" if met else "   MISSED")
        return f"{self.name:<66} {self.value:>9.2f} {self.unit:<12} {verdict}"


def median(work: Callable[[], object], loops: int = 1) -> float:
    """Return the median seconds of one run of `work`."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        for _ in range(loops):
            work()
        times.append((time.perf_counter() - started) / loops)
    return statistics.median(times)


def batch_of(count: int, codec: Compression = Compression.NONE) -> bytes:
    """Return a batch of 100-byte values, ten to a millisecond."""
    builder = BatchBuilder(compression=codec)
    for index in range(count):
        builder.append(NOW + index // 10, None, b"x" * 100)
    return builder.build()


def log_of(count: int) -> bytearray:
    """Return batches of that many records, back to back, with the offsets of a log."""
    batch, data, offset = bytearray(batch_of(count)), bytearray(), 0
    while len(data) < DATA_BYTES:
        set_log_fields(batch, offset, 0)
        data += batch
        offset += count
    return data


def locate(columns: RecordColumns, data: bytearray) -> int:
    """Locate all of `data`, the same columns again and again, as a consumer does; return the records found."""
    position, found = 0, 0
    while position < len(data):
        columns.clear()
        position, _ = columns.locate(data, position)
        found += columns.count
    return found


def build(columns: RecordColumns, data: bytearray) -> int:
    """Make records of all of `data` as a consumer's record faces do; return how many."""
    position, made = 0, 0
    view = memoryview(data)
    while position < len(data):
        columns.clear()
        position, _ = columns.locate(view, position, check_crc=False)
        made += len(build_records(view, "t", 0, 0, columns.count, *(getattr(columns, name) for name in COLUMN_NAMES)))
    return made


def index(data: bytearray, offset_index: bytearray, time_index: bytearray, rows: array[int]) -> array[int]:
    """Index all of `data` as recovery does; return the state."""
    state = new_index_state(0, index_interval_bytes=4096)
    index_batches(data, state, offset_index, time_index, rows)
    return state


def large_batches() -> list[Figure]:
    """Many batches a call, at 10,000, 100 and 1 record a batch."""
    figures = []
    outputs = bytearray(1 << 20), bytearray(1 << 20)
    for count, locate_goal, recovery_goal in ((10_000, 50.0, 500.0), (100, 50.0, 500.0), (1, 5.0, 200.0)):
        data = log_of(count)
        batches = len(data) // read_header(data).size_bytes
        label = f"{count:,} a batch"
        columns, rows = RecordColumns(COLUMN_ROWS), new_rows(batches)
        assert locate(columns, data) == batches * count
        assert check_batches(data, 0, len(data), 0, rows)[0] == batches
        state = index(data, *outputs, rows)
        assert (state[STATE_BATCHES], state[STATE_POSITION]) == (batches, len(data)), state
        located = median(partial(locate, columns, data))
        checked = median(partial(check_batches, data, 0, len(data), 0, rows))
        indexed = median(partial(index, data, *outputs, rows))
        trimmed = median(partial(trim_batches, data, 0, 2**62, 2**40))
        surveyed = median(partial(survey_batches, data, 0, True))
        assert build(columns, data) == batches * count
        built = median(partial(build, columns, data))
        figures += [
            Figure(f"locate records, CRC checked, {label}", located, batches * count, "M records/s", locate_goal),
            Figure(f"check batches: CRC and rows, {label}", checked, len(data), "GB/s"),
            Figure(f"index batches: recovery, {label}", indexed, len(data), "MB/s", recovery_goal),
            Figure(f"trim batches: fetch, {label}", trimmed, len(data), "GB/s"),
            Figure(f"survey a fetch, CRC checked, {label}", surveyed, len(data), "GB/s"),
            Figure(f"records as objects, {label}", built, batches * count, "M records/s"),
        ]
    return figures


def one_batch() -> list[Figure]:
    """What a produced batch costs on the event loop, and the loops inside."""
    data = log_of(10_000)
    figures = [Figure("CRC-32C of 16 MB", median(partial(crc32c, data)), len(data), "GB/s", 5.0)]
    errors = array("q", [0, 0])
    for count in (10_000, 100):
        payload = batch_of(count)[HEADER_SIZE:]
        walk = median(partial(walk_records, payload, count, NOW, 0, 0, 0, 0, errors), 1_000_000 // count)
        goal = 5.0 if count == 10_000 else None
        figures.append(Figure(f"walk records, validate only, {count:,} a batch", walk, count, "ns", goal))
    rules = AppendRules(max_message_bytes=2_000_000)
    for count in (1, 100, 10_000):
        batch = memoryview(bytearray(batch_of(count)))
        spent = median(partial(validate_batch, batch, rules, NOW + 1000), max(10, 20_000 // count))
        goal = 1.0 if count == 1 else None
        figures.append(Figure(f"validate_batch, {count:,} a batch", spent, 1, "us", goal))
    stamp = median(partial(set_log_fields, bytearray(batch_of(1)), 7, 1, NOW), 20_000)
    figures.append(Figure("set_log_fields", stamp, 1, "us"))
    return figures


def cleaning() -> list[Figure]:
    """What the log cleaner does to 16 MB of records of 100 bytes with keys, a tenth as many as records."""
    data, offset = bytearray(), 0
    draw = random.Random(1)
    keys = DATA_BYTES // 1000
    while len(data) < DATA_BYTES:
        batch = BatchBuilder(base_offset=offset)
        for _ in range(1000):
            batch.append(NOW, b"%010d" % draw.randrange(keys), b"x" * 81)
        data += batch.build()
        offset += 1000
    rows = new_rows(offset // 1000)
    count, _, _ = check_batches(data, 0, len(data), 0, rows)
    actions, out, found = bytearray(count), bytearray(len(data)), array("q", bytes(56))
    offsets = OffsetMap(64 << 20, load_factor=0.9, secret=bytes(16))

    def note() -> None:
        offsets.begin(0, offset)
        assert offsets.note_batches(memoryview(data), rows, 0, count, actions)[0] == count

    def copy() -> None:
        table = offsets.table, offsets.state
        filtered = filter_batches(data, rows, 0, count, actions, array("q"), NOW, NOW, *table, out, 0, found)
        assert filtered[0] == count

    return [
        Figure("cleaner: note keys", median(note), offset, "ns"),
        Figure("cleaner: copy what stays", median(copy), offset, "ns"),
    ]


def one_record() -> list[Figure]:
    """What Python does record by record: for tools and tests."""
    batch = batch_of(10_000)
    return [
        Figure("BatchBuilder, a record", median(partial(batch_of, 10_000)), 10_000, "us"),
        Figure("iter_records, a record", median(lambda: list(iter_records(batch))), 10_000, "us"),
    ]


def codecs() -> list[Figure]:
    """Codecs on 1 MB of lines of a log."""
    lines = b"".join(
        b"2026-01-01T00:00:%02d INFO request %d served in %d us\n" % (n % 60, n, n * 7919 % 9973) for n in range(20_000)
    )
    figures = []
    for codec in Compression:
        if codec is Compression.NONE:
            continue
        packed = compress(codec, lines)
        packing = median(partial(compress, codec, lines))
        opening = median(partial(decompress, codec, packed, size_bytes_max=10**8))
        name = f"{codec.name.lower()} ({len(lines) / len(packed):.1f}:1)"
        figures += [
            Figure(f"compress {name}", packing, len(lines), "MB/s"),
            Figure(f"decompress {name}, bounded", opening, len(lines), "MB/s"),
        ]
    return figures


def sending() -> list[Figure]:
    """A producer's send() up to its handle: partition, encoding, handle; full batches are dropped at once."""

    def drop() -> None:
        for queue in accumulator.take_listed():
            for batch in accumulator.take_closed(queue, False):
                accumulator.recharge(batch, 0)

    def keyless() -> None:
        for _ in range(SENDS):
            send("flights", value)

    def keyed() -> None:
        for _ in range(SENDS):
            send("flights", value, key=b"key-12345")

    def stalled(topic: str, partition: int, lacking_bytes: int) -> None:
        raise AssertionError((topic, partition, lacking_bytes))

    accumulator = RecordAccumulator(
        OpenBatch,
        lambda _topic: 0,
        drop,
        ValueError,
        buffer_memory=32 << 20,
        batch_size=16_384,
        record_size_max=1 << 20,
    )
    accumulator.set_partitions("flights", 6)
    send = Appender(accumulator, stalled).send
    value = bytes(100)
    return [
        Figure("send() of a record, without a key", median(keyless), SENDS, "ns", 600),
        Figure("send() of a record, with a key", median(keyed), SENDS, "ns", 600),
    ]


def main() -> None:
    """Print the table."""
    compiled = all(kernels_compiled().values())
    print(f"kernels: {'compiled' if compiled else 'INTERPRETED'}; CRC-32C: {'hardware' if is_hardware() else 'tables'}")
    for part in (large_batches, one_batch, cleaning, one_record, sending, codecs):
        for figure in part():
            print(figure, flush=True)


if __name__ == "__main__":
    main()
