"""Dead letters read back: what could not be read, as it came, from the Avro files below `_dead_letters`.

Which files were replayed is in the commit log, in the document REPLAYED + topic: the entry that brings the rows says so
too, and one entry is all or nothing. The files stay where they are, as a record of what happened. The document names
those that wait still, of what entries up to a number brought, so it does not grow with what was replayed. Of a file of
which some letters' records come again, as their topic is loaded anew, those before an offset wait.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from millstream.hadoop_loader.commit.names import DEAD_LETTERS, dead_letters_directory, entry_number
from millstream.hadoop_loader.source.topics import loads_topic

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import TableFile, TableState
    from millstream.hadoop_loader.filesystem import FileSystem
    from millstream.hadoop_loader.job import LoadJob

# No topic's name has a slash.
REPLAYED: Final = "_dead_letters/"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record that could not be read, and why not."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    error: str


def letter_topics(state: TableState, job: LoadJob | None = None) -> list[str]:
    """The topics that ever had dead letters, by name; with a job its own alone, as others may write to its root."""
    found = (key.removeprefix(f"{DEAD_LETTERS}/") for key in state.totals if key.startswith(f"{DEAD_LETTERS}/"))
    return sorted(topic for topic in found if job is None or loads_topic(job.source, topic))


def letter_files(state: TableState, topic: str) -> list[TableFile]:
    """The files of a topic's dead letters that were not replayed, by name.

    One of which only the first letters wait has their rows and their last offset: `letters_of` reads these alone.
    """
    document = state.schemas.get(f"{REPLAYED}{topic}") or {}
    up_to, waiting = document.get("up_to", 0), set(document.get("waiting", ()))
    # What a document named that was written before there were numbers in them.
    replayed = set(document.get("replayed", ()))
    before = document.get("before", {})
    return [
        first_letters(file, *before[file.name]) if file.name in before else file
        for file in state.files.under(dead_letters_directory(topic))
        if (entry_number(file.name) > up_to or file.name in waiting) and file.name not in replayed
    ]


def waiting_letters(state: TableState, job: LoadJob | None = None) -> dict[str, int]:
    """How many letters were not replayed, by topic; `job` as of `letter_topics`."""
    # Their files are looked at only where some were: there may be many, and every run asks.
    return {
        topic: sum(file.rows for file in letter_files(state, topic))
        if f"{REPLAYED}{topic}" in state.schemas
        else state.totals[dead_letters_directory(topic)].rows
        for topic in letter_topics(state, job)
    }


def first_letters(file: TableFile, end: int, rows: int) -> TableFile:
    """Return a file with no more letters than those before offset `end`, which are so many rows."""
    return replace(file, last_offset=end - 1, rows=rows)


def replayed_document(
    state: TableState, topic: str, files: Collection[TableFile], cut: Collection[TableFile] = ()
) -> dict[str, Any]:
    """The topic's document once these files were replayed: `state` is what the entry that says so is made on.

    Those of `cut` have been but for their `first_letters`.
    """
    done = {file.name for file in files}
    waiting = {file.name: file for file in (*letter_files(state, topic), *cut) if file.name not in done}
    before = (state.schemas.get(f"{REPLAYED}{topic}") or {}).get("before", {})
    of_first = [waiting[name] for name in sorted({*before, *(file.name for file in cut)} & waiting.keys())]
    document: dict[str, Any] = {"up_to": state.number, "waiting": list(waiting)}
    if of_first:
        document["before"] = {file.name: [file.last_offset + 1, file.rows] for file in of_first}
    return document


def read_letters(filesystem: FileSystem, path: str) -> Iterator[DeadLetter]:
    """Yield the letters of one file. Raises FileNotFoundError, FileSystemError, ContainerError for a damaged file."""
    from millstream.hadoop_loader.writing.container_datums import read_datums

    with filesystem.open(path) as stored:
        yield from map(_letter, read_datums(stored))


def letters_of(filesystem: FileSystem, file: TableFile) -> Iterator[DeadLetter]:
    """Yield the letters of one of `letter_files` that wait. Raises as `read_letters`."""
    return (letter for letter in read_letters(filesystem, file.path) if letter.offset <= file.last_offset)


def _letter(datum: Any) -> DeadLetter:
    return DeadLetter(
        datum["topic"],
        datum["partition"],
        datum["offset"],
        _milliseconds(datum["timestamp"]),
        datum["key"],
        datum["value"],
        tuple((header["key"], header["value"]) for header in datum["headers"] or ()),
        datum["error"],
    )


def _milliseconds(time: Any) -> int:
    if time is None:
        return -1
    return time if isinstance(time, int) else round(time.timestamp() * 1000)
