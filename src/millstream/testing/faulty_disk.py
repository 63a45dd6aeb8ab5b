"""File systems that fail as disks do: for tests of the log, and of whatever else takes a `FileSystem`.

`FaultyDisk` fails chosen calls (EIO, ENOSPC, EMFILE, torn writes), crashes at a chosen change, and can then lose what
was not synced, as a power cut would. `SyncJournal` is for a broker in a child process: it notes in a file what was
synced, and after `kill -9` (which loses nothing, since the pages stay with the system) `lose_unsynced` rolls the disk
back to that.
"""

from __future__ import annotations

import errno
import os
import random
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from millstream.core.log.files import Buffer, FileSystem


class SimulatedCrashError(BaseException):
    """The process died here. No handler of ordinary errors may catch it."""


@dataclass(slots=True)
class _Rule:
    operation: str
    error: int
    path: str
    skip: int
    times: int


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


class FaultyDisk(FileSystem):
    """The real file system under a directory, with faults on demand. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._rules: list[_Rule] = []
        self._paths: dict[int, str] = {}
        # Changes made so far: writes, truncations, syncs, renames, creations, unlinks.
        self.changes = 0
        self._crash_at = -1
        self._torn_bytes: int | None = None
        # What a power cut leaves: contents by inode as last synced, and names by folder as last synced.
        self._synced_data: dict[int, bytes] = {}
        self._synced_names: dict[str, dict[str, int]] = {}
        # Contents of files that lost their last name since the folder was synced: a power cut may bring them back.
        self._last_data: dict[int, bytes] = {}
        # Open descriptors of those, so that no new file gets their inode; they go with the disk.
        self._held: list[int] = []
        weakref.finalize(self, _close_all, self._held)

    def fail(self, operation: str, error: int = errno.EIO, *, path: str = "", skip: int = 0, times: int = 1) -> None:
        """Let calls of `operation` (a method) on paths that contain `path` fail: `times` of them, after `skip`."""
        with self._lock:
            self._rules.append(_Rule(operation, error, path, skip, times))

    def heal(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._rules.clear()
            self._crash_at = -1

    def crash_at(self, change: int, *, torn_bytes: int | None = None) -> None:
        """Raise SimulatedCrashError instead of the change of that number (from 1), and at everything after it.

        With `torn_bytes` a write there still writes so many bytes.
        """
        with self._lock:
            self._crash_at = change
            self._torn_bytes = torn_bytes

    def power_cut(self, seed: int) -> None:
        """Lose what was not synced, as `seed` decides.

        Of each file anything between its synced and its last content stays, of each folder's names either the synced or
        the last. The files must have been abandoned.
        """
        rng = random.Random(seed)
        with self._lock:
            self.heal()
            for folder, names in self._synced_names.items():
                if not Path(folder).is_dir():
                    continue
                current = {path.name: path.stat().st_ino for path in Path(folder).iterdir() if path.is_file()}
                chosen = dict(rng.choice((names, current)))
                contents = {name: self._after_cut(ino, folder, current, rng) for name, ino in chosen.items()}
                for name in current:
                    Path(folder, name).unlink()
                for name, data in contents.items():
                    Path(folder, name).write_bytes(data)
            _close_all(self._held)
            self._synced_data.clear()
            self._last_data.clear()
            self._synced_names.clear()

    def _after_cut(self, ino: int, folder: str, current: dict[str, int], rng: random.Random) -> bytes:
        synced = self._synced_data.get(ino, b"")
        name = next((name for name, other in current.items() if other == ino), None)
        last = Path(folder, name).read_bytes() if name is not None else self._last_data.get(ino, synced)
        if not last.startswith(synced):
            return rng.choice((synced, last))
        kept = last[: rng.randint(len(synced), len(last))]
        lost = rng.choice((0, 0, len(last) - len(kept)))  # a size that was written before its pages reads as zeros
        return kept + bytes(lost)

    # What is watched.

    def _enter(self, operation: str, path: str, *, change: bool = False) -> None:
        with self._lock:
            for rule in self._rules:
                if rule.operation == operation and rule.path in path:
                    if rule.skip:
                        rule.skip -= 1
                    elif rule.times:
                        rule.times -= 1
                        raise OSError(rule.error, os.strerror(rule.error), path)
            if change:
                self.changes += 1
            if 0 <= self._crash_at <= self.changes and (change or self.changes > self._crash_at):
                raise SimulatedCrashError(f"at change {self.changes}: {operation} {path}")

    def open(self, path: str, flags: int, mode: int = 0o644) -> int:
        creates = bool(flags & os.O_TRUNC) or (bool(flags & os.O_CREAT) and not Path(path).exists())
        self._enter("open", path, change=creates)
        fd = super().open(path, flags, mode)
        with self._lock:
            self._paths[fd] = path
            if creates:
                self._synced_names.setdefault(str(Path(path).parent), {})
        return fd

    def preadv(self, fd: int, buffers: Sequence[bytearray | memoryview], position: int, *, wait: bool = True) -> int:
        self._enter("preadv", self._paths.get(fd, ""))
        return super().preadv(fd, buffers, position, wait=wait)

    def pread(self, fd: int, size: int, position: int) -> bytes:
        self._enter("pread", self._paths.get(fd, ""))
        return super().pread(fd, size, position)

    def sendfile(self, socket_fd: int, fd: int, position: int, size: int) -> int:
        self._enter("sendfile", self._paths.get(fd, ""))
        return super().sendfile(socket_fd, fd, position, size)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], position: int) -> int:
        data = b"".join(buffers)
        self._write("pwritev", fd, data, position)
        return len(data)

    def pwrite(self, fd: int, data: Buffer, position: int) -> int:
        self._write("pwrite", fd, bytes(data), position)
        return len(data)

    def _write(self, operation: str, fd: int, data: bytes, position: int) -> None:
        try:
            self._enter(operation, self._paths.get(fd, ""), change=True)
        except OSError:
            os.pwrite(fd, data[: len(data) // 2], position)  # a failed write may have done half of its work
            raise
        except SimulatedCrashError:
            if self._torn_bytes and self.changes == self._crash_at:
                os.pwrite(fd, data[: self._torn_bytes], position)
            raise
        self.write_whole(fd, data, position)

    @staticmethod
    def write_whole(fd: int, data: bytes, position: int) -> None:
        """Write all of it, whatever the system takes at once."""
        while data:
            done = os.pwrite(fd, data, position)
            data, position = data[done:], position + done

    def truncate(self, fd: int, size: int) -> None:
        self._enter("truncate", self._paths.get(fd, ""), change=True)
        super().truncate(fd, size)

    def fsync(self, fd: int) -> None:
        self._enter("fsync", self._paths.get(fd, ""), change=True)
        self._note_synced(fd)

    def fdatasync(self, fd: int) -> None:
        self._enter("fdatasync", self._paths.get(fd, ""), change=True)
        self._note_synced(fd)

    def _note_synced(self, fd: int) -> None:
        stat = os.fstat(fd)
        path = self._paths.get(fd, "")
        with self._lock:
            if Path(path).is_dir():
                self._synced_names[path] = {
                    each.name: each.stat().st_ino for each in Path(path).iterdir() if each.is_file()
                }
            else:
                self._synced_data[stat.st_ino] = Path(f"/proc/self/fd/{fd}").read_bytes()

    def rename(self, old: str, new: str) -> None:
        self._enter("rename", old, change=True)
        self._remember(new)
        super().rename(old, new)
        with self._lock:
            for folder in [each for each in self._synced_names if each == old or each.startswith(old + "/")]:
                self._synced_names[new + folder[len(old) :]] = self._synced_names.pop(folder)

    def unlink(self, path: str) -> None:
        self._enter("unlink", path, change=True)
        self._remember(path)
        super().unlink(path)

    def _remember(self, path: str) -> None:
        file = Path(path)
        if file.is_file():
            with self._lock:
                self._last_data[file.stat().st_ino] = file.read_bytes()
                self._held.append(os.open(path, os.O_RDONLY))

    def list_names(self, path: str) -> list[tuple[str, bool]]:
        self._enter("list_names", path)
        return super().list_names(path)

    def list_sizes(self, path: str) -> list[tuple[str, int, int]]:
        self._enter("list_sizes", path)
        return super().list_sizes(path)

    def make_directory(self, path: str) -> None:
        self._enter("make_directory", path, change=True)
        super().make_directory(path)

    def remove_directory(self, path: str) -> None:
        self._enter("remove_directory", path, change=True)
        super().remove_directory(path)


class SyncJournal(FileSystem):
    """The real file system, noting in `journal` what has been opened for writing and what is synced.

    Lines: `W size path` opened for writing (what was there at the first opening counts as synced), `S size path` synced
    at that size, `T size path` cut, `R old<TAB>new` renamed.
    The journal itself is not synced: it survives a killed process, which is what it is for.
    """

    def __init__(self, journal: str) -> None:
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._paths: dict[int, str] = {}

    def _note(self, line: str) -> None:
        os.write(self._journal, (line + "\n").encode())

    def open(self, path: str, flags: int, mode: int = 0o644) -> int:
        existing = Path(path).stat().st_size if Path(path).exists() else 0
        fd = super().open(path, flags, mode)
        self._paths[fd] = path
        if flags & (os.O_WRONLY | os.O_RDWR):
            self._note(f"W {existing} {path}")
            if flags & os.O_TRUNC:
                self._note(f"T 0 {path}")
        return fd

    def truncate(self, fd: int, size: int) -> None:
        super().truncate(fd, size)
        self._note(f"T {size} {self._paths[fd]}")

    def fsync(self, fd: int) -> None:
        size = self.size(fd)
        super().fsync(fd)
        if not Path(self._paths[fd]).is_dir():
            self._note(f"S {size} {self._paths[fd]}")

    def fdatasync(self, fd: int) -> None:
        size = self.size(fd)
        super().fdatasync(fd)
        self._note(f"S {size} {self._paths[fd]}")

    def rename(self, old: str, new: str) -> None:
        super().rename(old, new)
        self._note(f"R {old}\t{new}")


def lose_unsynced(journal: str | os.PathLike[str]) -> dict[str, int]:
    """Cut every file that the journal names to the size that was synced; return path to bytes lost.

    For a process that has been killed. Names are taken as synced: only data is lost. The journal is emptied.
    """
    sizes: dict[str, int] = {}
    for line in Path(journal).read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind in ("W", "S", "T"):
            digits, _, path = rest.partition(" ")
            if kind == "S":
                sizes[path] = int(digits)
            else:
                known = sizes.setdefault(path, int(digits))
                sizes[path] = known if kind == "W" else min(known, int(digits))
        elif kind == "R":
            old, _, new = rest.partition("\t")
            for path in [each for each in sizes if each == old or each.startswith(old + "/")]:
                sizes[new + path[len(old) :]] = sizes.pop(path)
    lost: dict[str, int] = {}
    for path, size in sizes.items():
        file = Path(path)
        if file.is_file() and file.stat().st_size > size:
            lost[path] = file.stat().st_size - size
            os.truncate(path, size)
    os.truncate(journal, 0)
    return lost
