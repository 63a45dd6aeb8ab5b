"""A directory of a local disk, or of a network mount, as a file system: every step made durable before it counts.

A name is on disk only when its directory is synced, so `rename`, `make_directory` and the first `sync` of a file sync
the directories they change. `os.rename` replaces a file silently, so it is never used for one: `renameat2` with
RENAME_NOREPLACE does it in one step where kernel and file system have that (ext4, xfs, btrfs, tmpfs), else `link` and
`unlink`, which a crash can leave with both names; the next try finds one file under both and takes the old name away.

A mount can hang without end, so calls run with deadlines (`deadlines`), as on HDFS.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

from millstream.hadoop_loader.filesystem.deadlines import Deadlines
from millstream.hadoop_loader.filesystem.errors import (
    AccessDeniedError,
    DirectoryNotEmptyError,
    FileSystemError,
    QuotaExceededError,
    StorageFullError,
    UnavailableError,
    UnknownOutcomeError,
)
from millstream.hadoop_loader.filesystem.interface import ClosedAtEnd, FileStatus, checked_path
from millstream.hadoop_loader.filesystem.output import ChunkedOutputFile
from millstream.hadoop_loader.filesystem.settings import FileSystemSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1
# What the kernel says of a file system, or of itself, that knows no RENAME_NOREPLACE.
_NOT_SUPPORTED: Final = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


class LocalFileSystem(ClosedAtEnd):
    """The FileSystem (see the interface) of one local directory, which need not exist yet."""

    def __init__(self, root: str, settings: FileSystemSettings | None = None) -> None:
        """`root` is an absolute path."""
        self._settings = settings or FileSystemSettings()
        self.root = Path(root)
        self.uri = f"file://{quote(str(self.root))}"
        self._deadlines = Deadlines(self.uri, self._settings.deadline_s, self._settings.calls_max)

    def create(self, path: str) -> LocalOutputFile:
        """A new file, with the permission, owner and group of the settings."""
        name = self._name(path)
        descriptor = self._act(path, partial(self._create, name), os.close)
        return LocalOutputFile(self, path, name, descriptor)

    def _create(self, name: Path) -> int:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            self._adopt(name, self._settings.permission)
        except BaseException:
            os.close(descriptor)
            name.unlink()
            raise
        return descriptor

    def open(self, path: str) -> LocalInputFile:
        """A file to read."""
        descriptor, size = self._read(path, partial(self._open, self._name(path)), lambda opened: os.close(opened[0]))
        return LocalInputFile(self, path, descriptor, size)

    def _open(self, name: Path) -> tuple[int, int]:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            os.close(descriptor)
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(name))
        return descriptor, status.st_size

    def rename(self, source: str, target: str) -> None:
        """Rename without replacing, and sync both directories."""
        old, new = self._name(source), self._name(target)
        self._act(target, partial(self._rename, old, new))

    def _rename(self, old: Path, new: Path) -> None:
        if old == new:
            raise _exists(old, new)
        rename_without_replacing(old, new)
        with _behind_a_rename():
            for folder in dict.fromkeys((new.parent, old.parent)):
                _sync_directory(folder)

    def make_directory(self, path: str) -> None:
        """A directory with its parents, each synced into its own parent."""
        try:
            self._act(path, partial(self._make_directories, self._name(path)))
        except FileNotFoundError as error:
            # Only file systems that are none, such as /proc, say so of a child of a directory that is there.
            what, remedy = "no directory can be made here", "name a directory of a disk as the destination"
            raise FileSystemError(what, uri=self.uri, path=path, remedy=remedy) from error

    def _make_directories(self, name: Path) -> None:
        missing = []
        while not name.is_dir():
            missing.append(name)
            name = name.parent
        for child in reversed(missing):
            # Another process may be making it too; a file of that name is an error all the same.
            try:
                self._make_child(child)
            except FileExistsError:
                if not child.is_dir():
                    raise

    def make_child(self, path: str) -> None:
        """One directory."""
        self._act(path, partial(self._make_child, self._name(path)))

    def _make_child(self, name: Path) -> None:
        name.mkdir()
        self._adopt(name, self._settings.directory_permission)
        _sync_directory(name.parent)

    def status(self, path: str) -> FileStatus | None:
        """What is at `path`, links followed; None for nothing, and for a child of a file."""
        try:
            found = self._read(path, partial(os.stat, self._name(path)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _status(path, found)

    def list(self, path: str) -> list[FileStatus]:
        """The children by name; what is deleted meanwhile may be missing."""
        return self._read(path, partial(_list, self._name(path), f"{path}/" if path else ""))

    def delete(self, path: str, recursive: bool = False) -> bool:
        """Remove a file or a directory; links are removed, never followed."""
        return self._act(path, partial(_delete, self._name(path), recursive))

    def set_attributes(
        self,
        path: str,
        *,
        permission: int | None = None,
        owner: str | None = None,
        group: str | None = None,
        replication: int | None = None,
    ) -> None:
        """Change mode, owner and group; `replication` says nothing here."""
        del replication
        self._act(path, partial(_set_attributes, self._name(path), permission, owner, group))

    def close(self) -> None:
        """End the threads that make the calls."""
        self._deadlines.close()

    def _adopt(self, name: Path, permission: int | None) -> None:
        _set_attributes(name, permission, self._settings.owner, self._settings.group)

    def _name(self, path: str) -> Path:
        name = self.root / checked_path(path)
        try:
            os.fsencode(name)
        except UnicodeEncodeError as error:
            what = f"names of files are in {error.encoding} here, which lacks {error.object[error.start]!a}"
            remedy = "run it in a locale of UTF-8, or with PYTHONUTF8=1"
            raise FileSystemError(what, uri=self.uri, path=path, remedy=remedy) from error
        return name

    def _read(self, path: str, function: Callable[[], T], discard: Callable[[T], object] | None = None) -> T:
        try:
            return self._deadlines.read(path, function, discard)
        except OSError as error:
            raise self._translated(error, path, UnavailableError) from error

    def _act(self, path: str, function: Callable[[], T], discard: Callable[[T], object] | None = None) -> T:
        try:
            return self._deadlines.act(path, function, discard)
        except OSError as error:
            raise self._translated(error, path, UnknownOutcomeError) from error

    def _translated(self, error: OSError, path: str, unanswered: type[FileSystemError]) -> Exception:
        """The interface's error for one of the operating system."""
        what = error.strerror or str(error)
        if isinstance(error, _BehindRenameError):
            return unanswered(f"renamed, and then: {what}", uri=self.uri, path=path)
        match error.errno:
            case errno.ENOENT | errno.EEXIST | errno.ENOTDIR | errno.EISDIR:
                return error
            case errno.ENOTEMPTY:
                return DirectoryNotEmptyError(what, uri=self.uri, path=path)
            case errno.EACCES | errno.EPERM | errno.EROFS:
                return AccessDeniedError(what, uri=self.uri, path=path)
            case errno.ENOSPC:
                return StorageFullError(what, uri=self.uri, path=path)
            case errno.EDQUOT:
                return QuotaExceededError(what, uri=self.uri, path=path)
            case (
                errno.ETIMEDOUT
                | errno.ESTALE
                | errno.ECONNRESET
                | errno.ECONNABORTED
                | errno.ENOTCONN
                | errno.EHOSTDOWN
                | errno.EHOSTUNREACH
                | errno.ENETUNREACH
            ):
                return unanswered(what, uri=self.uri, path=path)
            case errno.EIO | errno.EREMOTEIO if unanswered is UnknownOutcomeError:
                # So a soft mount says that its server is silent, having sent the request.
                return unanswered(what, uri=self.uri, path=path)
        return FileSystemError(what, uri=self.uri, path=path)


class LocalOutputFile(ChunkedOutputFile):
    """A local file being written."""

    def __init__(self, filesystem: LocalFileSystem, path: str, name: Path, descriptor: int) -> None:
        super().__init__(path)
        self._filesystem = filesystem
        self._name = name
        # -1 once it is closed, or left to a call that has not returned: a number used twice would hit another's file.
        self._descriptor = descriptor
        self._name_synced = False

    def _send(self, data: memoryview) -> None:
        self._call(partial(_write_all, self._descriptor, data))

    def _sync(self) -> None:
        self._call(partial(os.fsync, self._descriptor))
        if not self._name_synced:
            self._filesystem._act(self.path, partial(_sync_directory, self._name.parent))
            self._name_synced = True

    def _finish(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        self._filesystem._act(self.path, partial(os.close, descriptor))

    def _give_up(self) -> None:
        if self._descriptor >= 0:
            self._finish()
        self._filesystem.delete(self.path)

    def _call(self, function: Callable[[], None]) -> None:
        descriptor = self._descriptor
        try:
            self._filesystem._act(self.path, function, lambda _: os.close(descriptor))
        except UnknownOutcomeError as error:
            if error.__cause__ is None:  # at its deadline, not by an answer of the operating system
                self._descriptor = -1
            raise

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            os.close(self._descriptor)


class LocalInputFile(ClosedAtEnd):
    """A local file being read."""

    def __init__(self, filesystem: LocalFileSystem, path: str, descriptor: int, size: int) -> None:
        self.path = path
        self.size = size
        self._filesystem = filesystem
        self._descriptor = descriptor

    def read_at(self, position: int, size: int) -> bytes:
        """`size` bytes from `position`, fewer at the end."""
        if self._descriptor < 0:
            raise ValueError(f"{self.path} is closed")
        size = max(0, min(size, self.size - position))
        if not size:
            return b""
        return self._filesystem._read(self.path, partial(_read_all, self._descriptor, position, size))

    def close(self) -> None:
        """Close it; a read under way in another thread must have ended."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            os.close(self._descriptor)


class _BehindRenameError(OSError):
    """What failed when the new name was there already: neither "nothing has happened" nor "done"."""


@contextlib.contextmanager
def _behind_a_rename() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _BehindRenameError(error.errno, error.strerror, error.filename) from error


def rename_without_replacing(old: Path, new: Path) -> None:
    """Rename a file or directory on one local file system; FileExistsError if anything is at `new`. Syncs nothing."""
    code = errno.ENOSYS
    if _renameat2 is not None:
        if _renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), _RENAME_NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
    if code in _NOT_SUPPORTED:
        link_and_unlink(old, new)
    elif code != errno.EEXIST or not _finish_linking(old, new):
        raise OSError(code, os.strerror(code), str(old), None, str(new))


def link_and_unlink(old: Path, new: Path) -> None:
    """`rename_without_replacing` where the file system has no such call (network mounts)."""
    if stat.S_ISDIR(old.lstat().st_mode):
        # A directory cannot be linked. os.rename puts one in place of nothing or of an empty one, never of any other,
        # so what may be lost between the two lines is at most an empty directory.
        if os.path.lexists(new):
            raise _exists(old, new)
        try:
            old.rename(new)
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                raise _exists(old, new) from error
            raise
        return
    try:
        os.link(old, new, follow_symlinks=False)
    except FileExistsError:
        if not _finish_linking(old, new):
            raise
        return
    with _behind_a_rename():
        old.unlink()


def _finish_linking(old: Path, new: Path) -> bool:
    """Whether `new` is the file at `old` already, as a crash between link and unlink leaves it; the old name goes."""
    before, after = old.lstat(), new.lstat()
    if not os.path.samestat(before, after) or stat.S_ISDIR(before.st_mode):
        return False
    with _behind_a_rename():
        old.unlink()
    return True


def _exists(old: Path, new: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(old), None, str(new))


def _find_renameat2() -> Any:
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return function


_renameat2: Final = _find_renameat2()


def _set_attributes(name: Path, permission: int | None, owner: str | None, group: str | None) -> None:
    if owner is not None or group is not None:
        try:
            shutil.chown(name, owner, group)  # type: ignore[arg-type]  # None leaves it, which typeshed denies for one
        except LookupError as error:
            raise PermissionError(errno.EPERM, f"{error} on this machine", str(name)) from error
    if permission is not None:
        name.chmod(permission)


def _status(path: str, found: os.stat_result) -> FileStatus:
    is_directory = stat.S_ISDIR(found.st_mode)
    return FileStatus(path, 0 if is_directory else found.st_size, is_directory, found.st_mtime_ns // 1_000_000)


def _list(name: Path, prefix: str) -> list[FileStatus]:
    children = []
    with os.scandir(name) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                children.append(_status(prefix + entry.name, entry.stat()))
    return sorted(children)


def _delete(name: Path, recursive: bool) -> bool:
    try:
        if not stat.S_ISDIR(name.lstat().st_mode):
            name.unlink()
        elif recursive:
            shutil.rmtree(name)
        else:
            name.rmdir()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _sync_directory(name: Path) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _read_all(descriptor: int, position: int, size: int) -> bytes:
    data = os.pread(descriptor, size, position)
    if len(data) == size or not data:
        return data
    parts = [data]
    found = len(data)
    while found < size and (data := os.pread(descriptor, size - found, position + found)):
        parts.append(data)
        found += len(data)
    return b"".join(parts)
