"""What the log has in each directory, kept up with entry by entry: what a directory that says it is closed must hold.

A `_SUCCESS` says at any moment that all rows are there. The last entry may be on its way there yet: where it adds to a
directory that was closed before, or replaces it, the files from before it are as right as its own. The first one to
close a directory has all of its rows in place before the mark.
"""

from __future__ import annotations

from collections.abc import Collection

from millstream.hadoop_loader.commit.encoding import decode_entry

_NOTHING: frozenset[str] = frozenset()


class Ledger:
    """Files by directory and the closed directories, as of the last entry taken in."""

    def __init__(self) -> None:
        self._files: dict[str, frozenset[str]] = {}
        self._closed: set[str] = set()
        # What the closed directories that the last entry touched held before it.
        self._before: dict[str, frozenset[str]] = {}

    def take(self, number: int, data: bytes) -> None:
        """Go on by an entry's bytes; entries come in order."""
        entry = decode_entry(data, f"entry {number}", number)
        self._before = {}
        for added, _ in entry.added:
            self._change(added.directory, _NOTHING, {added.name})
        for swap in entry.swaps:
            self._change(swap.directory, {file.name for file in swap.removed}, {file.name for file in swap.files})
        self._closed.update(entry.closed)

    def why_not_whole(self, directory: str, present: Collection[str]) -> str | None:
        """What a directory with a `_SUCCESS` that holds these files lacks, or None."""
        if directory not in self._closed:
            return f"{directory} is not closed"
        listed = self._files.get(directory, _NOTHING)
        if listed.issubset(present) or self._before.get(directory, listed).issubset(present):
            return None
        return f"{directory} lacks {sorted(listed.difference(present))}"

    def _change(self, directory: str, removed: Collection[str], added: Collection[str]) -> None:
        held = self._files.get(directory, _NOTHING)
        if directory in self._closed:
            self._before.setdefault(directory, held)
        self._files[directory] = held.difference(removed).union(added)
