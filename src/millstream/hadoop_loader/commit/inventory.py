"""Every visible file of a table root, in the order of directory and name, without holding them all in memory.

What changed since the last checkpoint is held as the entries that changed it, and looked into when somebody asks. What
the checkpoint has is in sorted runs (`inventory_runs`), of which only the blocks that are asked for are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from millstream.hadoop_loader.commit.entries import Entry, TableFile


@dataclass(slots=True)
class Inventory:
    """The files at one number. Not thread-safe."""

    # Entries since the checkpoint that added or removed files, oldest first.
    entries: list[Entry] = field(default_factory=list)

    def fold(self, entry: Entry) -> None:
        """Take in what an entry did to files; nothing is decoded yet."""
        self.entries.append(entry)

    def under(self, prefix: str = "") -> Iterator[TableFile]:
        """The files in `prefix` (a directory relative to the root; "" for all) and below, by directory and name."""
        files: dict[tuple[str, str], TableFile] = {}
        for entry in self.entries:
            for added in entry.added:
                files[added.file.directory, added.file.name] = added.file
            for swap in entry.swaps:
                for name in swap.removed:
                    files.pop((swap.directory, name), None)
                files.update({(file.directory, file.name): file for file in swap.files})
        for (directory, _), file in sorted(files.items()):
            if not prefix or directory == prefix or directory.startswith(prefix + "/"):
                yield file

    def in_directory(self, directory: str) -> list[TableFile]:
        """The files of one directory, those below it left out."""
        return [file for file in self.under(directory) if file.directory == directory]
