"""Consume partitions from the start as fast as the broker sends: one socket, one large fetch a partition in flight.

    python -m bench.load.consume --bootstrap 127.0.0.1:9092 --topic t --partitions 4 --seconds 5

Records are counted from batch headers alone. Where all batches have one size (as bench.load.produce makes them) only
the first and the last header of a response are read. Prints {"records", "seconds", "bytes", "cpu_seconds"}.
"""

import argparse
import json
import os
import resource
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from bench.load.frames import HEADER_SIZE, connect, fetch_frame, fetched_records


def count_batches(data: memoryview, expected_offset: int) -> tuple[int, int]:
    """The whole batches' (bytes, offset behind the last one). Their offsets must go on from `expected_offset`."""
    first_offset, length = struct.unpack_from(">qi", data)
    size = length + 12
    delta = struct.unpack_from(">i", data, 23)[0]
    assert first_offset <= expected_offset <= first_offset + delta, f"{first_offset} after {expected_offset}"
    batches = len(data) // size
    last_at = (batches - 1) * size
    last_offset, last_length, last_delta = _at(data, last_at)
    if last_length == length and last_delta == delta and last_offset == first_offset + (batches - 1) * (delta + 1):
        return batches * size, last_offset + last_delta + 1
    return _walk(data, first_offset)


def _at(data: memoryview, position: int) -> tuple[int, int, int]:
    offset, length = struct.unpack_from(">qi", data, position)
    return offset, length, struct.unpack_from(">i", data, position + 23)[0]


def _walk(data: memoryview, expected_offset: int) -> tuple[int, int]:
    position = 0
    while position + HEADER_SIZE <= len(data):
        offset, length, delta = _at(data, position)
        if position + length + 12 > len(data):
            break
        assert offset == expected_offset, f"batch at offset {offset}, expected {expected_offset}"
        position += length + 12
        expected_offset = offset + delta + 1
    return position, expected_offset


def run(
    bootstrap: str, topic: str, partitions: int, *, size_bytes_max: int, records: int, seconds: float
) -> dict[str, float]:
    """Read every partition to its end (an empty answer), or until `records` or `seconds`; start over is not done."""
    frames = [
        fetch_frame(topic, partition, size_bytes_max=size_bytes_max, wait_ms=10) for partition in range(partitions)
    ]
    offsets = [0] * partitions
    order = list(range(partitions))
    buffer = memoryview(bytearray(max(size_bytes_max, 2 << 20) + (4 << 20)))
    taken = got_bytes = 0
    started = time.monotonic()
    deadline = started + seconds
    with connect(bootstrap) as connection:
        for partition in order:
            connection.sendall(frames[partition][0])
        while order and taken < records and time.monotonic() < deadline:
            partition = order.pop(0)
            connection.recv_into(buffer[:4], 4, socket.MSG_WAITALL)
            size = struct.unpack_from(">i", buffer)[0]
            response = buffer[:size]
            if connection.recv_into(response, size, socket.MSG_WAITALL) != size:
                raise ConnectionError("the broker closed the connection")
            data = fetched_records(len(topic), response)
            if not data:
                continue
            used, after = count_batches(data, offsets[partition])
            got_bytes += used
            taken += after - offsets[partition]
            offsets[partition] = after
            frame, offset_at = frames[partition]
            struct.pack_into(">q", frame, offset_at, after)
            connection.sendall(frame)
            order.append(partition)
    took = time.monotonic() - started
    return {"records": taken, "bytes": got_bytes, "seconds": took}


def evict(folders: Sequence[Path]) -> None:
    """Drop the files under these folders from the page cache (their dirty pages are written first)."""
    for path in (path for folder in folders for path in sorted(folder.rglob("*.log"))):
        with path.open("rb") as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--fetch-bytes", type=int, default=1 << 20)
    parser.add_argument("--records", type=int, default=1 << 60)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--passes", type=int, default=1, help="how often to read all of it; 0 is until killed")
    parser.add_argument("--evict", nargs="*", type=Path, default=[], help="folders to drop from the page cache first")
    given = parser.parse_args()
    total: dict[str, float] = {}
    passes = 0
    while not given.passes or passes < given.passes:
        evict(given.evict)
        result = run(
            given.bootstrap,
            given.topic,
            given.partitions,
            size_bytes_max=given.fetch_bytes,
            records=given.records,
            seconds=given.seconds,
        )
        total = {name: total.get(name, 0) + value for name, value in result.items()}
        passes += 1
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({**total, "cpu_seconds": usage.ru_utime + usage.ru_stime}))


if __name__ == "__main__":
    main()
