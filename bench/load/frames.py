"""Ready-made request frames, and where the few interesting fields of their responses lie.

Versions: Produce 10 and Fetch 12, which librdkafka sends and both brokers serve. A frame is built once; before it is
sent again only the correlation id (and a fetch's offset) is patched. Every frame of one program names a topic of the
same length and one partition, so all its responses have one size and one layout, and are checked by slices.

    produce response  size i32 | correlation i32 | tags 1 | topics 1 | name 1+n | partitions 1 | partition i32
                      | error i16 | base offset i64 | append time i64 | log start i64 | record errors 1 | message 1
                      | tags 2 | throttle i32 | tags 1
    fetch response    size i32 | correlation i32 | tags 1 | throttle i32 | error i16 | session i32 | topics 1 | name 1+n
                      | partitions 1 | partition i32 | error i16 | high watermark i64 | last stable i64 | log start i64
                      | aborted 1 | preferred replica i32 | records uvarint | ... | tags 3
"""

import random
import socket
import struct
import time

from millstream.core.records import BatchBuilder
from millstream.core.wire import ErrorCode

PRODUCE, FETCH = 0, 1
PRODUCE_VERSION, FETCH_VERSION = 10, 12
CORRELATION_AT = 8
CLIENT_ID = b"load"
HEADER_SIZE = 61
TIMEOUT_S = 120


class RefusedError(Exception):
    """The broker answered with an error, or with a response of another layout."""


def uvarint(value: int) -> bytes:
    """An unsigned varint, as flexible versions write lengths."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_uvarint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """The value at `position`, and the position behind it."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def make_batch(records: int, record_size: int, seed: int = 1) -> bytes:
    """One uncompressed batch: `records` values of random letters, keyless."""
    builder = BatchBuilder()
    randbytes = random.Random(seed).randbytes
    now_ms = int(time.time() * 1000)
    for _ in range(records):
        builder.append(now_ms, None, randbytes(record_size))
    return builder.build()


def _compact(text: str) -> bytes:
    data = text.encode()
    return uvarint(len(data) + 1) + data


def _frame(key: int, version: int, body: bytes) -> bytearray:
    head = struct.pack(">hhih", key, version, 0, len(CLIENT_ID)) + CLIENT_ID + b"\0"
    return bytearray(struct.pack(">i", len(head) + len(body)) + head + body)


def produce_frame(topic: str, partition: int, batch: bytes, acks: int = 1) -> bytearray:
    """A whole Produce request with one batch for one partition."""
    head = b"\0" + struct.pack(">hi", acks, 30_000) + b"\x02" + _compact(topic) + b"\x02" + struct.pack(">i", partition)
    return _frame(PRODUCE, PRODUCE_VERSION, head + uvarint(len(batch) + 1) + batch + b"\0\0\0")


class ProduceResponses:
    """Where things lie in the responses of produce_frame's requests to one topic."""

    def __init__(self, topic: str) -> None:
        self.error_at = 4 + 4 + 1 + 1 + len(_compact(topic)) + 1 + 4
        self.base_offset_at = self.error_at + 2
        self.size = self.base_offset_at + 8 * 3 + 1 + 1 + 2 + 4 + 1

    def check(self, responses: memoryview) -> int:
        """How many whole responses there are, all of them free of error. Raises RefusedError otherwise."""
        count, rest = divmod(len(responses), self.size)
        assert rest == 0, f"{len(responses)} bytes are no whole responses of {self.size}"
        first = struct.unpack_from(">i", responses)[0]
        # The size's last byte and both bytes of the error code, in all responses at once.
        sizes = bytes(responses[3 :: self.size])
        low, high = bytes(responses[self.error_at + 1 :: self.size]), bytes(responses[self.error_at :: self.size])
        if first != self.size - 4 or sizes.count(sizes[0]) != count or any(low) or any(high):
            code = struct.unpack_from(">h", responses, self.error_at)[0]
            raise RefusedError(f"a response of {first} bytes, {self.size - 4} expected; error {code}: {_name(code)}")
        return count


def fetch_frame(topic: str, partition: int, *, size_bytes_max: int, wait_ms: int) -> tuple[bytearray, int]:
    """A whole Fetch request for one partition, outside any session; and where its offset lies in it."""
    head = struct.pack(">iiiibii", -1, wait_ms, 1, size_bytes_max, 0, 0, -1) + b"\x02" + _compact(topic) + b"\x02"
    before = head + struct.pack(">ii", partition, -1)
    after = struct.pack(">iqi", -1, -1, size_bytes_max) + b"\0\0" + b"\x01" + b"\x01" + b"\0"
    frame = _frame(FETCH, FETCH_VERSION, before + struct.pack(">q", 0) + after)
    return frame, len(frame) - len(after) - 8


def fetched_records(topic_size: int, response: memoryview) -> memoryview:
    """The batches in a response to fetch_frame (without its leading size). Raises RefusedError on any error code."""
    top_error = struct.unpack_from(">h", response, 9)[0]
    at = 4 + 1 + 4 + 2 + 4 + 1 + len(uvarint(topic_size + 1)) + topic_size + 1
    _, error, _ = struct.unpack_from(">ihq", response, at)
    if top_error or error:
        raise RefusedError(f"fetch: error {top_error or error}: {_name(top_error or error)}")
    _, at = read_uvarint(response, at + 4 + 2 + 8 * 3)
    length, at = read_uvarint(response, at + 4)
    return response[at : at + max(length - 1, 0)]


def _name(code: int) -> str:
    return next((known.name for known in ErrorCode if known == code), "unknown")


def connect(bootstrap: str, *, receive_bytes: int = 4 << 20, send_bytes: int = 4 << 20) -> socket.socket:
    """A blocking connection with large socket buffers."""
    host, _, port = bootstrap.rpartition(":")
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.connect((host, int(port)))
    # Not settimeout(): that makes the descriptor non-blocking, and MSG_WAITALL would return early.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", TIMEOUT_S, 0))
    return connection
