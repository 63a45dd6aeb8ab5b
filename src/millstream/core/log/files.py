"""The operating system's files, as the log uses them: injected, so that a test can tear writes and fail calls.

Every method is one system call (or a few) and blocks for as long as the disk does; which of them the event loop may
call is said in `log.py`. Descriptors are plain integers; paths are text, since 20,000 partitions' worth of Path
objects cost more than the calls they serve.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path

Buffer = bytes | bytearray | memoryview


class FileSystem:
    """The real one. Errors are OSErrors as the system raised them."""

    # Called when no descriptor is left: closes some that can be opened again, and says whether it could.
    release_descriptors: Callable[[], bool] | None = None

    def open(self, path: str, flags: int, mode: int = 0o644) -> int:
        try:
            return os.open(path, flags | os.O_CLOEXEC, mode)
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE}:
                raise
            if self.release_descriptors is None or not self.release_descriptors():
                raise
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def preadv(self, fd: int, buffers: Sequence[bytearray | memoryview], position: int, *, wait: bool = True) -> int:
        """Read at `position`; with `wait` false, BlockingIOError where that would have to wait for the disk."""
        if wait:
            return os.preadv(fd, buffers, position)
        try:
            return os.preadv(fd, buffers, position, os.RWF_NOWAIT)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.ENOSYS}:  # tmpfs before Linux 6.11, overlays
                raise
            return os.preadv(fd, buffers, position)

    def blocks_read(self) -> int:
        """Blocks that disks were asked for on behalf of this thread, reading ahead included; only grows."""
        return resource.getrusage(resource.RUSAGE_THREAD).ru_inblock

    def pread(self, fd: int, size: int, position: int) -> bytes:
        return os.pread(fd, size, position)

    def sendfile(self, socket_fd: int, fd: int, position: int, size: int) -> int:
        """Send from the file to a socket that does not block; return how much of it that took."""
        return os.sendfile(socket_fd, fd, position, size)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], position: int) -> int:
        return os.pwritev(fd, buffers, position)

    def pwrite(self, fd: int, data: Buffer, position: int) -> int:
        return os.pwrite(fd, data, position)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def fdatasync(self, fd: int) -> None:
        os.fdatasync(fd)

    def start_writeback(self, fd: int, position: int, size: int) -> None:
        """Let the system begin to write these bytes to the disk, without waiting: a later sync then has less to do.

        Linux does so for what it is told will not be needed; what it is still writing stays in memory.
        """
        os.posix_fadvise(fd, position, size, os.POSIX_FADV_DONTNEED)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def stat(self, path: str) -> os.stat_result:
        return os.stat(path)  # noqa: PTH116  paths are text here

    def exists(self, path: str) -> bool:
        return os.path.exists(path)  # noqa: PTH110  paths are text here

    def list_names(self, path: str) -> list[tuple[str, bool]]:
        """Return the names in the folder, each with whether it is a folder itself."""
        with os.scandir(path) as entries:
            return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]

    def list_sizes(self, path: str) -> list[tuple[str, int, int]]:
        """Return (name, size in bytes, last change in ms) of each file in the folder; folders in it are left out."""
        found = []
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    stat = entry.stat(follow_symlinks=False)
                    found.append((entry.name, stat.st_size, stat.st_mtime_ns // 1_000_000))
        return found

    def rename(self, old: str, new: str) -> None:
        os.replace(old, new)  # noqa: PTH105  paths are text here

    def unlink(self, path: str) -> None:
        os.unlink(path)  # noqa: PTH108  paths are text here

    def make_directory(self, path: str) -> None:
        Path(path).mkdir(parents=True, exist_ok=True)

    def remove_directory(self, path: str) -> None:
        Path(path).rmdir()

    def sync_directory(self, path: str) -> None:
        """Make the names in the folder durable: what was created, renamed or unlinked in it."""
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.fsync(fd)
        finally:
            self.close(fd)

    def read_bytes(self, path: str) -> bytes:
        """Return the whole of a small file."""
        fd = self.open(path, os.O_RDONLY)
        try:
            parts = []
            position = 0
            while part := self.pread(fd, 1 << 20, position):
                parts.append(part)
                position += len(part)
        finally:
            self.close(fd)
        return b"".join(parts)

    def write_atomically(self, path: str, data: Buffer, *, sync_directory: bool = True) -> None:
        """Replace a small file: written aside as `.tmp`, synced, renamed over `path`, and the folder synced.

        A crash at any point leaves the old file or the new one, whole. The caller that replaces several files of one
        folder syncs that folder itself, once.
        """
        temporary = path + ".tmp"
        fd = self.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            self.write_all(fd, data, 0)
            self.fsync(fd)
        finally:
            self.close(fd)
        self.rename(temporary, path)
        if sync_directory:
            self.sync_directory(path.rpartition("/")[0])

    def write_unsynced(self, path: str, data: Buffer) -> None:
        """Write a small file that can be made again: a crash may leave it torn or empty."""
        fd = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            self.write_all(fd, data, 0)
        finally:
            self.close(fd)

    def write_synced(self, path: str, data: Buffer) -> None:
        """Write a file that carries its own checksum, and sync it."""
        fd = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            self.write_all(fd, data, 0)
            self.fsync(fd)
        finally:
            self.close(fd)

    def write_all(self, fd: int, data: Buffer, position: int) -> None:
        """Write all of `data` at `position`; a short write is continued."""
        view = memoryview(data)
        while view:
            written = self.pwrite(fd, view, position)
            position += written
            view = view[written:]
