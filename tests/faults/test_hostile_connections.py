"""Connections that hold on to memory: half-open ones, announced and dripped frames, answers that are never read."""

import contextlib
import random
import socket
import struct
import time

from tests.faults.conftest import Victim
from tests.support.witness import Witness

from millstream.core.records import BatchBuilder
from millstream.core.wire.messages.api_versions import ApiVersionsRequest
from millstream.core.wire.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from millstream.core.wire.messages.metadata import MetadataRequest
from millstream.testing.raw import ClosedError, RawConnection

HALF_OPEN = 10_000
DRIPPERS = 500
ANNOUNCED_BYTES = 100 << 20
DRIPPED_BYTES_MIN = 100_000_000


def connections(victim: Victim, count: int) -> list[socket.socket]:
    host, _, port = victim.bootstrap.rpartition(":")
    return [socket.create_connection((host, int(port)), timeout=90) for _ in range(count)]


def test_ten_thousand_half_open_connections(victim: Victim, witness: Witness) -> None:
    # Nothing, half a length, a length, the start of a request.
    starts = [b"", b"\0\0", struct.pack(">i", 1000), struct.pack(">ihh", 1000, 0, 9)]
    opened: list[socket.socket] = []
    try:
        opened = connections(victim, HALF_OPEN)
        for number, connection in enumerate(opened):
            connection.sendall(starts[number % len(starts)])
        witness.wait_rounds(50)
        with RawConnection(victim.bootstrap) as raw:
            assert raw.topics()
    finally:
        for connection in opened:
            connection.close()


def test_frames_announced_and_dripped(victim: Victim, witness: Witness, soak: bool) -> None:
    """500 clients announce 100 MB each and send it piece by piece: no announced length is believed."""
    draw = random.Random(1)
    head = struct.pack(">ihhih", ANNOUNCED_BYTES, 0, 9, 1, -1)
    piece = draw.randbytes(16 << 10)
    opened = connections(victim, DRIPPERS)
    sent = 0
    try:
        for connection in opened:
            connection.setblocking(False)
            connection.send(head)
        began = time.monotonic()
        alive = set(opened)
        # For a while, and until it is more than the broker may hold, however slowly that goes.
        while alive and (time.monotonic() < began + (60 if soak else 6) or sent <= DRIPPED_BYTES_MIN):
            assert time.monotonic() < began + 150, f"{sent} bytes were taken"
            for connection in list(alive):
                try:
                    sent += connection.send(piece)
                except BlockingIOError:
                    continue
                except OSError:
                    alive.discard(connection)
        print(f"{sent / 1e6:.0f} MB dripped, {DRIPPERS - len(alive)} of {DRIPPERS} connections were closed")
        witness.wait_rounds(20)
    finally:
        for connection in opened:
            connection.close()
    assert sent > DRIPPED_BYTES_MIN, "the drip must be more than the broker may hold"


def test_readers_that_never_read(victim: Victim, witness: Witness) -> None:
    """100 consumers ask for a megabyte 100 times each and read nothing of it."""
    topic = "unread"
    builder = BatchBuilder()
    for _ in range(500):
        builder.append(1_700_000_000_000, None, b"x" * 1000)
    with RawConnection(victim.bootstrap) as raw:
        raw.create_topic(topic)
        for _ in range(20):
            assert raw.produce(topic, 0, builder.build()).error_code == 0
        partition = FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1 << 20)
        request = FetchRequest(min_bytes=1, max_bytes=1 << 20, topics=[FetchTopic(topic=topic, partitions=[partition])])
        frame = raw.encode(request, 12)
    opened = connections(victim, 100)
    try:
        for connection in opened:
            connection.setblocking(False)
            with contextlib.suppress(OSError):
                connection.send(frame * 100)
        witness.wait_rounds(100)
        # One of them turns out to be only slow: its first answer is whole and right.
        slow = opened[0]
        slow.settimeout(90)
        (size,) = struct.unpack(">i", slow.recv(4, socket.MSG_WAITALL))
        assert 1 << 18 < size < 2 << 20
    finally:
        for connection in opened:
            connection.close()


def test_ten_thousand_pipelined_requests_are_answered_in_order_once_they_are_read(
    victim: Victim, witness: Witness
) -> None:
    """Nothing is read until all are sent, or the broker takes no more; then every answer comes, in order."""
    count = 10_000
    with RawConnection(victim.bootstrap, timeout_s=90) as raw:
        frames = b"".join(
            raw.encode(MetadataRequest(topics=[]) if number % 2 else ApiVersionsRequest(), 1) for number in range(count)
        )
        raw.socket.setblocking(False)
        sent, deadline = 0, time.monotonic() + 3
        with contextlib.suppress(BlockingIOError):
            while sent < len(frames) and time.monotonic() < deadline:
                sent += raw.socket.send(frames[sent:])
        witness.wait_rounds(50)
        raw.socket.settimeout(90)
        answered = 0
        try:
            while answered < count:
                if sent < len(frames):
                    raw.socket.settimeout(90)
                    sent += raw.socket.send(frames[sent : sent + 4096])
                answer = raw.receive()
                answered += 1
                assert struct.unpack_from(">i", answer)[0] == answered
        except ClosedError:
            assert answered > 0 or victim.name == "millstream", "closed without an answer"
    assert answered == count, f"{answered} of {count} answered"
