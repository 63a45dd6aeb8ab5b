"""End-to-end latency, one record at a time: from the produce request's send to the waiting fetch's answer.

    python -m bench.load.latency --bootstrap 127.0.0.1:9092 --topic t --count 3000

The consumer's fetch waits at the broker before each record is sent; nothing else is in flight. Prints milliseconds
{"p50", "p99", "p999", "max", "count"}.
"""

import argparse
import json
import socket
import struct
import time

from bench.load.frames import connect, fetch_frame, fetched_records, make_batch, produce_frame


def receive(connection: socket.socket, buffer: memoryview) -> memoryview:
    """The next response, without its size, as a view of `buffer`."""
    connection.recv_into(buffer[:4], 4, socket.MSG_WAITALL)
    size = struct.unpack_from(">i", buffer)[0]
    response = buffer[:size]
    if connection.recv_into(response, size, socket.MSG_WAITALL) != size:
        raise ConnectionError("the broker closed the connection")
    return response


def run(bootstrap: str, topic: str, *, count: int, warmup: int, pause_s: float, offset: int = 0) -> list[float]:
    """The latencies in milliseconds, in order, without the warm-up. The topic's partition 0 must end at `offset`."""
    batch = make_batch(1, 100)
    produce = produce_frame(topic, 0, batch)
    fetch, offset_at = fetch_frame(topic, 0, size_bytes_max=1 << 20, wait_ms=5000)
    buffer = memoryview(bytearray(2 << 20))
    latencies = []
    with connect(bootstrap) as producer, connect(bootstrap) as consumer:
        for number in range(count + warmup):
            struct.pack_into(">q", fetch, offset_at, offset)
            consumer.sendall(fetch)
            time.sleep(pause_s)
            started = time.perf_counter_ns()
            producer.sendall(produce)
            records = fetched_records(len(topic), receive(consumer, buffer))
            took = time.perf_counter_ns() - started
            assert len(records) == len(batch), f"{len(records)} bytes fetched, {len(batch)} produced"
            found = struct.unpack_from(">q", records)[0]
            assert found == offset, f"offset {found} fetched, {offset} expected"
            receive(producer, buffer)
            offset += 1
            if number >= warmup:
                latencies.append(took / 1e6)
    return latencies


def percentiles(latencies: list[float]) -> dict[str, float]:
    """What is reported of them."""
    ordered = sorted(latencies)
    pick = [(name, ordered[min(int(len(ordered) * part), len(ordered) - 1)]) for name, part in PARTS]
    return {**dict(pick), "max": ordered[-1], "count": len(ordered)}


PARTS = (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--warmup", type=int, default=500)
    parser.add_argument("--pause-ms", type=float, default=1.0)
    given = parser.parse_args()
    latencies = run(given.bootstrap, given.topic, count=given.count, warmup=given.warmup, pause_s=given.pause_ms / 1000)
    print(json.dumps(percentiles(latencies)))


if __name__ == "__main__":
    main()
