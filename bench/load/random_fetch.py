"""Fetches at random offsets of one partition: how long each takes, from cold files and from the page cache.

    python -m bench.load.random_fetch --bootstrap 127.0.0.1:9092 --topic t --count 300 --folder data/t-0

Each offset is fetched from a cold file first (the folder is dropped from the page cache), then all of them again, now
cached. Prints milliseconds {"cold_p50", "cached_p50"}.
"""

import argparse
import json
import random
import statistics
import struct
import time
from pathlib import Path

from bench.load.consume import evict
from bench.load.frames import connect, fetch_frame, fetched_records
from bench.load.latency import receive

from millstream.testing.raw import RawConnection


def run(bootstrap: str, topic: str, count: int, folder: Path, seed: int) -> dict[str, float]:
    """The medians of both passes over the same offsets."""
    with RawConnection(bootstrap) as raw:
        end = raw.offset(topic, 0)
    draw = random.Random(seed)
    offsets = [draw.randrange(end) for _ in range(count)]
    frame, offset_at = fetch_frame(topic, 0, size_bytes_max=64 << 10, wait_ms=0)
    buffer = memoryview(bytearray(4 << 20))
    evict([folder])
    medians = []
    with connect(bootstrap) as connection:
        for _ in ("cold", "cached"):
            took = []
            for offset in offsets:
                struct.pack_into(">q", frame, offset_at, offset)
                started = time.perf_counter_ns()
                connection.sendall(frame)
                records = fetched_records(len(topic), receive(connection, buffer))
                took.append((time.perf_counter_ns() - started) / 1e6)
                first, delta = struct.unpack_from(">q", records)[0], struct.unpack_from(">i", records, 23)[0]
                assert first <= offset <= first + delta, f"offset {offset} asked, {first}-{first + delta} given"
            medians.append(statistics.median(took))
    return {"cold_p50": medians[0], "cached_p50": medians[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(json.dumps(run(given.bootstrap, given.topic, given.count, given.folder, given.seed)))


if __name__ == "__main__":
    main()
