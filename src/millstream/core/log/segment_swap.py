"""Segments that take the place of others, and what a crash has left of that.

A cleaner writes `.cleaned` files, renames them to `.swap` when they are whole, deletes the segments that they replace,
and renames them again. So a `.cleaned` file is worth nothing, a `.swap` file everything, and `.deleted` ones have left
their log before.
"""

from __future__ import annotations

from collections.abc import Collection

from millstream.core.log.files import FileSystem
from millstream.core.log.segment import (
    CLEANED_SUFFIX,
    DELETED_SUFFIX,
    LOG_SUFFIX,
    SEGMENT_SUFFIXES,
    SWAP_SUFFIX,
    base_offset_of,
    file_name,
)
from millstream.core.records import ROW_LAST_OFFSET, ROW_WIDTH, StopReason, check_batches, new_rows


def finish_interrupted(files: FileSystem, path: str, listing: Collection[str]) -> None:
    """Finish or undo what the names in the folder `path` tell of. Blocks. OSError as the system says."""
    cleaned = [base_offset_of(name) for name in listing if name.endswith(LOG_SUFFIX + CLEANED_SUFFIX)]
    oldest_cleaned = min((base for base in cleaned if base is not None), default=2**63)
    swapped = []
    for name in listing:
        base = base_offset_of(name)
        if name.endswith((DELETED_SUFFIX, CLEANED_SUFFIX)):
            files.unlink(f"{path}/{name}")
        elif name.endswith(SWAP_SUFFIX):
            if base is None or base >= oldest_cleaned:
                files.unlink(f"{path}/{name}")
            else:
                swapped.append((name, base))
    for name, base in swapped:
        if name.endswith(LOG_SUFFIX + SWAP_SUFFIX):
            end_offset = _next_offset_of(files, f"{path}/{name}", base)
            for other in listing:
                other_base = base_offset_of(other)
                if other.endswith(LOG_SUFFIX) and other_base is not None and base < other_base < end_offset:
                    for suffix in SEGMENT_SUFFIXES:
                        if file_name(other_base, suffix) in listing:
                            files.unlink(f"{path}/{file_name(other_base, suffix)}")
    for name, _ in swapped:
        files.rename(f"{path}/{name}", f"{path}/{name.removesuffix(SWAP_SUFFIX)}")
    files.sync_directory(path)


def _next_offset_of(files: FileSystem, path: str, base_offset: int) -> int:
    data = files.read_bytes(path)
    rows = new_rows(1024)
    position, offset = 0, base_offset
    while True:
        count, position, reason = check_batches(data, position, len(data), offset, rows, False)
        if count:
            offset = rows[(count - 1) * ROW_WIDTH + ROW_LAST_OFFSET] + 1
        if reason != StopReason.ROWS_FULL:
            return offset
