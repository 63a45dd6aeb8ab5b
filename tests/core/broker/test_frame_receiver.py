"""What one read of a connection is offered: little for small frames, so that no client holds the loop; else more."""

from types import SimpleNamespace
from typing import cast

import pytest

from millstream.core.broker.connections import Connections
from millstream.core.broker.frame_receiver import CHUNK_SIZE_BYTES, SCRATCH_SIZE_BYTES, FrameReceiver
from millstream.core.broker.memory_pool import FrameBuffer, MemoryPool


class Receiver(FrameReceiver):
    """Takes every whole frame."""

    def __init__(self) -> None:
        scratch = memoryview(bytearray(SCRATCH_SIZE_BYTES))
        super().__init__(cast("Connections", SimpleNamespace(scratch=scratch, pool=MemoryPool(1 << 24))))
        self.frames: list[bytes] = []

    def _process(self, data: memoryview, end: int) -> int:
        position = 0
        while end - position >= 4:
            frame_end = position + 4 + int.from_bytes(data[position : position + 4], "big")
            if frame_end > end:
                break
            self.frames.append(bytes(data[position + 4 : frame_end]))
            position = frame_end
        return position

    def _process_frame(self, frame: FrameBuffer) -> None:
        self.frames.append(bytes(frame.view[4 : frame.size]))

    def _is_blocked(self) -> bool:
        return False

    def _handle_kept(self) -> None:
        raise AssertionError("nothing is kept whole")

    def _continue(self) -> None:
        raise AssertionError("nothing blocks")

    def _drop(self, reason: str) -> None:
        raise AssertionError(reason)

    def receive(self, data: bytes) -> list[int]:
        """Receive all of it as a socket would that always has more; return how much each read took."""
        reads = []
        while data:
            buffer = self.get_buffer(-1)
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            self.buffer_updated(size)
            reads.append(size)
            data = data[size:]
        return reads


def frames(size: int, total: int) -> tuple[list[bytes], bytes]:
    """Frames of `size` bytes with their length in front, about `total` bytes of them."""
    bodies = [index.to_bytes(4, "big") * (size // 4) for index in range(total // size)]
    return bodies, b"".join(len(body).to_bytes(4, "big") + body for body in bodies)


@pytest.mark.parametrize("size", [200, 4096, 4100, 11_000, 40_000, 65_532, 65_536, 300_000])
def test_frames_of_every_size_come_out_as_they_went_in(size: int) -> None:
    receiver = Receiver()
    bodies, data = frames(size, 3_000_000)
    receiver.receive(data)
    assert receiver.frames == bodies


def test_a_read_is_large_only_while_frames_are_not_small() -> None:
    receiver = Receiver()
    assert max(receiver.receive(frames(200, 1_000_000)[1])) == CHUNK_SIZE_BYTES
    large = receiver.receive(frames(11_000, 2_000_000)[1])
    assert large[0] <= CHUNK_SIZE_BYTES
    assert max(large) > SCRATCH_SIZE_BYTES * 3 // 4
    small = receiver.receive(frames(200, 1_000_000)[1])
    assert max(small[2:]) <= CHUNK_SIZE_BYTES


def test_a_chunk_that_was_not_full_is_followed_by_a_usual_one() -> None:
    receiver = Receiver()
    receiver.receive(frames(11_000, 1_000_000)[1])
    receiver.receive(frames(11_000, 30_000)[1])
    assert len(receiver.get_buffer(-1)) == CHUNK_SIZE_BYTES
