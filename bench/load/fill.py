"""Logs written straight into a stopped broker's partition folders: gigabytes of one-record batches in seconds.

The same bytes go to both brokers. A batch's base offset and leader epoch lie outside its CRC, so one ready-made batch
is repeated with only those patched. Indexes are left out: a start after a crash rebuilds them from the log.
"""

import struct
from pathlib import Path

BLOCK_SIZE_BYTES = 8 << 20


def write_log(folder: Path, batch: bytes, size_bytes: int, *, segment_bytes: int = 1_000_000_000) -> int:
    """Fill a partition's folder with whole batches up to `size_bytes`, in segments; return the log end offset."""
    for old in [*folder.glob("*.log"), *folder.glob("*index"), *folder.glob("*.snapshot")]:
        old.unlink()
    records = struct.unpack_from(">i", batch, 57)[0]
    a_block = max(1, BLOCK_SIZE_BYTES // len(batch))
    block = bytearray(batch * a_block)
    for at in range(0, len(block), len(batch)):
        struct.pack_into(">i", block, at + 12, 0)
    offset, left = 0, size_bytes // len(batch)
    while left > 0:
        segment_left = min(left, segment_bytes // len(batch))
        left -= segment_left
        with (folder / f"{offset:020d}.log").open("wb") as file:
            while segment_left > 0:
                count = min(a_block, segment_left)
                for at in range(0, count * len(batch), len(batch)):
                    struct.pack_into(">q", block, at, offset)
                    offset += records
                file.write(memoryview(block)[: count * len(batch)])
                segment_left -= count
    return offset


def forget_clean_stop(data_directory: Path) -> None:
    """Leave the folder as kill -9 does: no mark of a clean stop, and nothing known to be flushed."""
    (data_directory / ".kafka_cleanshutdown").unlink(missing_ok=True)
    for name in ("recovery-point-offset-checkpoint", "replication-offset-checkpoint"):
        path = data_directory / name
        if path.exists():
            path.write_text("0\n0\n")
