"""FrameReader against the frames that were put together, however the stream is cut, and against sizes that lie."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.core.net import FrameError, FrameReader, frame

bodies = st.lists(st.binary(max_size=200), max_size=10)


@given(bodies=bodies, cuts=st.lists(st.integers(1, 300), max_size=60))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(bytes(part) for body in bodies for part in frame([body]))
    reader = FrameReader()
    received: list[bytes] = []

    position = 0
    for cut in [*cuts, len(stream)]:
        received += [bytes(body) for body in reader.receive(stream[position : position + cut])]
        position = min(len(stream), position + cut)
    received += [bytes(body) for body in reader.receive(stream[position:])]

    assert received == bodies
    assert reader.held_bytes == 0


def test_a_frame_is_its_size_and_its_parts() -> None:
    assert frame([b"ab", memoryview(b"c")]) == [b"\x00\x00\x00\x03", b"ab", b"c"]


def test_nothing_is_held_for_a_size_that_was_only_announced() -> None:
    reader = FrameReader(size_bytes_max=100_000_000)
    assert reader.receive(b"\x05\xf5\xe1\x00" + b"x" * 10) == []  # announces 100,000,000
    assert reader.held_bytes == 10


@pytest.mark.parametrize(
    ("head", "complaint"),
    [(b"\xff\xff\xff\xff", "announces -1 bytes"), (b"\x00\x00\x04\x01", "1,025 bytes, more than the 1,024 allowed")],
)
def test_a_size_out_of_bounds_is_an_error_at_its_fourth_byte(head: bytes, complaint: str) -> None:
    reader = FrameReader(size_bytes_max=1024)
    assert reader.receive(head[:3]) == []
    with pytest.raises(FrameError, match=complaint):
        reader.receive(head[3:])


@given(sizes=st.lists(st.integers(0, 40_000), max_size=6), reads=st.lists(st.integers(1_000, 40_000), min_size=1))
def test_frames_received_in_place_keep_their_bytes_while_more_arrive(sizes: list[int], reads: list[int]) -> None:
    bodies = [bytes([index + 1]) * size for index, size in enumerate(sizes)]
    stream = b"".join(bytes(part) for body in bodies for part in frame([body]))
    reader = FrameReader()
    frames: list[memoryview] = []

    position = 0
    for read in itertools.cycle(reads):
        with reader.room() as room:
            taken = stream[position : position + min(read, len(room))]
            assert len(room) > 0
            room[: len(taken)] = taken
        frames += reader.received(len(taken))
        position += len(taken)
        if position == len(stream):
            break

    assert frames == bodies
    assert reader.held_bytes == 0


def test_a_frame_larger_than_its_first_room_grows_with_what_arrives() -> None:
    body = bytes(range(256)) * 80_000
    reader = FrameReader()
    assert reader.receive(b"".join(bytes(part) for part in frame([body]))) == [body]


def test_the_room_made_for_a_frame_follows_what_was_received_of_it() -> None:
    reader = FrameReader(size_bytes_max=100_000_000)
    reader.receive(b"\x05\xf5\xe1\x00" + b"x" * 10)
    with reader.room() as room:
        assert len(room) < 4_000_000
