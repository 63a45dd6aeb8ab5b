"""Local disks: the interface, durability's order, and renames without the kernel's help."""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.filesystem_kit import FileSystemConformance, get, names, put

from millstream.hadoop_loader.filesystem import (
    AccessDeniedError,
    FileSystem,
    FileSystemError,
    FileSystemSettings,
    LocalFileSystem,
    QuotaExceededError,
    StorageFullError,
    UnknownOutcomeError,
    local,
    open_filesystem,
)


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[FileSystem]:
    """An empty directory."""
    with open_filesystem((tmp_path / "lake").as_uri()) as filesystem:
        filesystem.make_directory("")
        yield filesystem


class TestLocal(FileSystemConformance):
    """The interface's promises on a local disk."""


class TestLocalWithoutNoReplace(FileSystemConformance):
    """The same where the kernel cannot rename without replacing, as on a network mount."""

    @pytest.fixture(autouse=True)
    def _no_renameat2(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(local, "_renameat2", None)


def test_a_rename_that_a_crash_cut_in_two_is_finished_by_the_next(tmp_path: Path) -> None:
    lake = LocalFileSystem(str(tmp_path))
    for name, rename in (("a", local.rename_without_replacing), ("b", local.link_and_unlink)):
        put(lake, f"staged-{name}", b"entry")
        # What a crash between link and unlink leaves.
        os.link(tmp_path / f"staged-{name}", tmp_path / f"entry-{name}")
        rename(tmp_path / f"staged-{name}", tmp_path / f"entry-{name}")
    assert names(lake) == ["entry-a", "entry-b"]
    assert get(lake, "entry-a") == b"entry"


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS])
def test_renames_do_without_a_call_that_the_file_system_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(local, "_renameat2", lambda *_: -1)
    monkeypatch.setattr(ctypes, "get_errno", lambda: code)
    lake = LocalFileSystem(str(tmp_path))
    put(lake, "file", b"x")
    lake.make_directory("directory")
    lake.rename("file", "other")
    lake.rename("directory", "folder")
    with pytest.raises(FileExistsError):
        lake.rename("folder", "other")
    assert names(lake) == ["folder", "other"]


def test_every_name_is_synced_into_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path).as_posix())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    lake = LocalFileSystem(str(tmp_path))
    lake.make_directory("a/b")
    assert synced == [".", "a"]
    synced.clear()
    with lake.create("a/b/file") as file:
        file.write(b"x")
        file.sync()
        file.write(b"y")
        file.sync()
    assert synced == ["a/b/file", "a/b", "a/b/file"]
    synced.clear()
    lake.rename("a/b/file", "a/file")
    assert synced == ["a", "a/b"]


def test_what_fails_behind_a_rename_is_no_refusal_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = LocalFileSystem(str(tmp_path))
    put(lake, "staged", b"entry")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(UnknownOutcomeError, match=r"entry: renamed, and then: Input/output error; .* the next run"):
            lake.rename("staged", "entry")
    assert names(lake) == ["entry"]

    put(lake, "staged", b"other")
    with monkeypatch.context() as patched:
        # Where a rename takes two steps, and the second fails.
        patched.setattr(local, "_renameat2", None)
        patched.setattr(Path, "unlink", refuse)
        with pytest.raises(UnknownOutcomeError):
            lake.rename("staged", "other")
    assert names(lake) == ["entry", "other", "staged"]
    lake.rename("staged", "other")
    assert names(lake) == ["entry", "other"]


def test_new_files_and_directories_have_the_modes_of_the_settings(tmp_path: Path) -> None:
    settings = FileSystemSettings(permission=0o640, directory_permission=0o750, replication=3)
    lake = LocalFileSystem(str(tmp_path / "lake"), settings)
    lake.make_directory("a/b")
    lake.make_child("a/c")
    put(lake, "a/file")

    def mode(path: str) -> int:
        return stat.S_IMODE((tmp_path / "lake" / path).stat().st_mode)

    assert [mode(path) for path in ("", "a", "a/b", "a/c")] == [0o750] * 4
    assert mode("a/file") == 0o640
    lake.set_attributes("a/file", permission=0o600, replication=2)
    assert mode("a/file") == 0o600
    with pytest.raises(AccessDeniedError, match="no such user"):
        lake.set_attributes("a/file", owner="nobody-of-this-name")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.EACCES, AccessDeniedError),
        (errno.EROFS, AccessDeniedError),
        (errno.ENOSPC, StorageFullError),
        (errno.EDQUOT, QuotaExceededError),
        (errno.ESTALE, UnknownOutcomeError),
        (errno.EIO, UnknownOutcomeError),
        (errno.ENOTCONN, UnknownOutcomeError),
        (errno.ECONNABORTED, UnknownOutcomeError),
        (errno.EHOSTUNREACH, UnknownOutcomeError),
        (errno.ENETUNREACH, UnknownOutcomeError),
        (errno.EREMOTEIO, UnknownOutcomeError),
        (errno.ENAMETOOLONG, FileSystemError),
    ],
)
def test_what_the_disk_says_becomes_an_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[FileSystemError]
) -> None:
    lake = LocalFileSystem(str(tmp_path))
    file = lake.create("file")
    file.write(b"x")

    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(kind) as raised:
        file.sync()
    assert type(raised.value) is kind
    assert raised.value.path == "file"
    assert str(raised.value).startswith(f"{tmp_path.as_uri()}/file: {os.strerror(code)}; ")
    copied = pickle.loads(pickle.dumps(raised.value))
    assert (type(copied), str(copied), copied.remedy) == (kind, str(raised.value), raised.value.remedy)
    with pytest.raises(ValueError, match="broken"):
        file.write(b"more")
    file.abandon()
    assert names(lake) == []


def test_a_file_dropped_by_everybody_is_closed(tmp_path: Path) -> None:
    lake = LocalFileSystem(str(tmp_path))
    put(lake, "file", b"x")

    def open_files() -> int:
        return len([*Path("/proc/self/fd").iterdir()])

    before = open_files()
    for number in range(5):
        lake.open("file")
        lake.create(f"file-{number}")
    assert open_files() == before


def test_links_are_followed_by_reads_and_never_by_deletes(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    lake = LocalFileSystem(str(tmp_path / "lake"))
    lake.make_directory("")
    (tmp_path / "lake" / "link").symlink_to(outside)
    (tmp_path / "lake" / "dangling").symlink_to(tmp_path / "absent")
    assert get(lake, "link/kept") == b"kept"
    assert names(lake) == ["link"]
    assert lake.delete("link", recursive=True)
    assert (outside / "kept").read_bytes() == b"kept"


def test_where_no_directory_can_be_made_is_said_so() -> None:
    with (
        open_filesystem("file:///proc/lake") as lake,
        pytest.raises(FileSystemError, match="file:///proc/lake: no directory can be made here; name a directory"),
    ):
        lake.make_directory("")


def test_a_name_that_the_locale_cannot_write_is_told_with_what_to_do(lake: FileSystem) -> None:
    # As any letter beyond ASCII is in the locale C.
    with pytest.raises(FileSystemError, match=r"in utf-8 here, which lacks '\\ud800'; run it in a locale of UTF-8"):
        lake.make_directory("country=\ud800")
