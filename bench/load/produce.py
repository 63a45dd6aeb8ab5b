"""Produce ready-made batches as fast as the broker acknowledges them: one socket, many requests in flight.

    python -m bench.load.produce --bootstrap 127.0.0.1:9092 --topic t --partitions 4 --batch 100 --seconds 5

One thread, blocking: it sends until the window is full, then reads whatever acknowledgements have come. Small requests
go out many a call. Prints {"records", "seconds", "requests", "bytes", "cpu_seconds"}.
"""

import argparse
import json
import resource
import struct
import time

from bench.load.frames import CORRELATION_AT, ProduceResponses, connect, make_batch, produce_frame

SEND_SIZE_BYTES = 64 * 1024


class Window:
    """The socket, and how many requests on it are sent but not acknowledged."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.connection = connect(bootstrap)
        self.responses = ProduceResponses(topic)
        self.sent = self.acknowledged = 0
        self._buffer = bytearray(1 << 20)
        self._held = 0

    def send(self, block: bytearray, frames_at: list[int]) -> None:
        """Send the frames that start at these positions of `block`, their correlation ids counted on."""
        for at in frames_at:
            struct.pack_into(">i", block, at + CORRELATION_AT, self.sent & 0x7FFFFFFF)
            self.sent += 1
        self.connection.sendall(block)

    def receive(self) -> None:
        """Read what has come (waiting for something), check it and count it."""
        view = memoryview(self._buffer)
        read = self.connection.recv_into(view[self._held :])
        if not read:
            raise ConnectionError("the broker closed the connection")
        held = self._held + read
        whole = held - held % self.responses.size
        if whole:
            first = struct.unpack_from(">i", self._buffer, 4)[0]
            assert first == self.acknowledged & 0x7FFFFFFF, f"response {first}, expected {self.acknowledged}"
            self.acknowledged += self.responses.check(view[:whole])
            view[: held - whole] = bytes(view[whole:held])
        self._held = held - whole


def make_blocks(topic: str, partitions: int, batch: bytes, in_flight: int) -> list[tuple[bytearray, list[int]]]:
    """Blocks to send in turn, each of frames for all partitions (small frames) or of one frame (large ones)."""
    frames = [produce_frame(topic, partition, batch) for partition in range(partitions)]
    a_block = max(1, min(SEND_SIZE_BYTES // len(frames[0]), in_flight // 4))
    if a_block < partitions:
        return [(frame, [0]) for frame in frames]
    a_block -= a_block % partitions
    block = bytearray(b"".join(frames[i % partitions] for i in range(a_block)))
    return [(block, [i * len(frames[0]) for i in range(a_block)])]


def run(
    bootstrap: str,
    topic: str,
    partitions: int,
    batch: bytes,
    *,
    in_flight: int,
    requests: int,
    seconds: float,
    requests_per_second: float = 0,
) -> dict[str, float]:
    """Send until `requests` are out or `seconds` are over, and wait for every acknowledgement."""
    window = Window(bootstrap, topic)
    blocks = make_blocks(topic, partitions, batch, in_flight)
    records = struct.unpack_from(">i", batch, 57)[0]
    started = time.monotonic()
    deadline = started + seconds
    turn = 0
    with window.connection:
        while window.sent < requests and time.monotonic() < deadline:
            block, frames_at = blocks[turn % len(blocks)]
            while window.sent - window.acknowledged + len(frames_at) > in_flight:
                window.receive()
            if requests_per_second:
                time.sleep(max(0.0, started + window.sent / requests_per_second - time.monotonic()))
            window.send(block, frames_at)
            turn += 1
        while window.acknowledged < window.sent:
            window.receive()
    took = time.monotonic() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "records": window.acknowledged * records,
        "requests": window.acknowledged,
        "bytes": window.acknowledged * len(batch),
        "seconds": took,
        "cpu_seconds": used.ru_utime + used.ru_stime,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--batch", type=int, required=True, help="records a batch")
    parser.add_argument("--record-size", type=int, default=100)
    parser.add_argument("--in-flight", type=int, default=0, help="requests; by default 8 MB of them, 5 to 1000")
    parser.add_argument("--requests", type=int, default=1 << 60)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--requests-per-second", type=float, default=0, help="no faster than this")
    given = parser.parse_args()
    batch = make_batch(given.batch, given.record_size)
    in_flight = given.in_flight or min(max((8 << 20) // len(batch), 5), 1000)
    result = run(
        given.bootstrap,
        given.topic,
        given.partitions,
        batch,
        in_flight=in_flight,
        requests=given.requests,
        seconds=given.seconds,
        requests_per_second=given.requests_per_second,
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
