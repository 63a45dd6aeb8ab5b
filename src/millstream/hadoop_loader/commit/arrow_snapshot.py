"""A Snapshot as a read-only file system of pyarrow, so that datasets can be made of it; loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSystemHandler, FileType

from millstream.hadoop_loader.filesystem.arrow import arrow_input

if TYPE_CHECKING:
    from collections.abc import Iterable

    from millstream.hadoop_loader.commit.snapshot import Snapshot


class SnapshotHandler(FileSystemHandler):  # type: ignore[misc]
    """Answers pyarrow for the files of one snapshot, by their paths at its number."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def get_type_name(self) -> str:
        """What kind of file system this is."""
        return "millstream-snapshot"

    def normalize_path(self, path: str) -> str:
        """Paths are relative to the table root and have one form only."""
        return path

    def get_file_info(self, paths: Iterable[str]) -> list[FileInfo]:
        """Whether the snapshot can open each."""
        infos = []
        for path in paths:
            try:
                with self._snapshot.open(path) as file:
                    infos.append(FileInfo(path, FileType.File, size=file.size))
            except FileNotFoundError:
                infos.append(FileInfo(path, FileType.NotFound))
        return infos

    def open_input_file(self, path: str) -> pa.NativeFile:
        """A file to read at any place; it is closed with the last reference to it."""
        return arrow_input(self._snapshot.open(path))

    def open_input_stream(self, path: str) -> pa.NativeFile:
        """A file to read from its start."""
        return self.open_input_file(path)

    def _refuse(self, *given: Any, **named: Any) -> Any:
        raise pa.ArrowNotImplementedError(f"a snapshot only opens the files its log lists; asked for {given or named}")

    # Listings come from the log, and nothing is ever written through here.
    get_file_info_selector = _refuse
    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = _refuse
    delete_file = move = copy_file = open_output_stream = open_append_stream = _refuse
