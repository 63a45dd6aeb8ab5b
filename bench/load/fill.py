"""What stands before a measurement: logs of gigabytes in a stopped broker's folders, and a page cache that is full.

The same logs go to both brokers. A batch's base offset and leader epoch lie outside its CRC, so one ready-made batch
is repeated with only those patched. Indexes are left out: a start after a crash rebuilds them from the log.
"""

import os
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


def fill_page_cache(path: Path) -> None:
    """Read a sparse file as large as the memory: what was free holds clean pages of the cache then.

    As on a server that has run for some days. Else a broker in a virtual machine is also billed for its host, which
    takes back what the guest has freed and gives it again, page by page, while the guest's write stands still.
    """
    buffer = bytearray(1 << 20)
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.ftruncate(fd, size)
        for position in range(0, size, len(buffer)):
            os.preadv(fd, [buffer], position)
    finally:
        os.close(fd)
