"""Where everything of a table root lies, and what its files are called; pure text.

    ROOT/_millstream/log/SEGMENT/NUMBER          entries, ENTRIES_PER_SEGMENT numbers in each segment directory
    ROOT/_millstream/publishing/NUMBER+RUN+NONCE entries before they are renamed into the log
    ROOT/_millstream/checkpoints/NUMBER          the state at NUMBER without its files
    ROOT/_millstream/inventory/NUMBER+NONCE      sorted runs of files, which checkpoints name
    ROOT/_millstream/renewals/NUMBER+RUN+COUNT   one empty file per claim; the claim's owner keeps raising COUNT
    ROOT/_millstream/applied/NUMBER              an empty file: every rename of entry NUMBER has been seen done
    ROOT/_millstream/staging/EPOCH-ROLE/SPLIT-ATTEMPT/
    ROOT/_millstream/trash/NUMBER/DIRECTORY      directories that entry NUMBER replaced
    ROOT/_millstream/discarded/NAME              what is on its way out: renamed here first, so that it goes at once
    ROOT/TABLE/FORMAT/DIRECTORY/TOPIC+PARTITION+FIRST+LAST+NUMBER.FORMAT
    ROOT/_dead_letters/TOPIC/...

NUMBER has twelve digits in names below `_millstream`, so that a listing is in order, and is plain in the names of data
files.
"""

from __future__ import annotations

from typing import Final

from millstream.hadoop_loader.splits import FileKind, StagedFile

HOME: Final = "_millstream"
LOG: Final = f"{HOME}/log"
PUBLISHING: Final = f"{HOME}/publishing"
CHECKPOINTS: Final = f"{HOME}/checkpoints"
INVENTORY: Final = f"{HOME}/inventory"
RENEWALS: Final = f"{HOME}/renewals"
APPLIED: Final = f"{HOME}/applied"
STAGING: Final = f"{HOME}/staging"
TRASH: Final = f"{HOME}/trash"
DISCARDED: Final = f"{HOME}/discarded"
# Every directory of the home that exists from a root's first claim on and is never removed.
HOME_DIRECTORIES: Final = (
    LOG,
    PUBLISHING,
    CHECKPOINTS,
    INVENTORY,
    RENEWALS,
    APPLIED,
    STAGING,
    TRASH,
    DISCARDED,
)
DEAD_LETTERS: Final = "_dead_letters"
SUCCESS: Final = "_SUCCESS"
LATE_SUFFIX: Final = ".late"

ENTRIES_PER_SEGMENT: Final = 1_000
NUMBER_DIGITS: Final = 12
# Joins the parts of names; Kafka's topics have only letters, digits, ".", "_" and "-".
SEPARATOR: Final = "+"


def number_name(number: int) -> str:
    """A number as the names below `_millstream` have it."""
    assert 0 <= number < 10**NUMBER_DIGITS, number
    return f"{number:0{NUMBER_DIGITS}d}"


def parse_number(name: str) -> int | None:
    """The number that `name` is, or begins with before a separator; None if it is some other name."""
    first = name.partition(SEPARATOR)[0]
    return int(first) if len(first) == NUMBER_DIGITS and first.isascii() and first.isdigit() else None


def segment_of(number: int) -> int:
    """The segment that holds `number`; numbers begin at 1, so the first segment holds one fewer."""
    return number // ENTRIES_PER_SEGMENT


def segment_path(segment: int) -> str:
    """The directory of a segment."""
    return f"{LOG}/{number_name(segment)}"


def entry_path(number: int) -> str:
    """Where entry `number` is published."""
    return f"{segment_path(segment_of(number))}/{number_name(number)}"


def checkpoint_path(number: int) -> str:
    """The checkpoint that covers entries up to `number`."""
    return f"{CHECKPOINTS}/{number_name(number)}"


def applied_path(number: int) -> str:
    """The mark that entry `number` has been applied."""
    return f"{APPLIED}/{number_name(number)}"


def staging_path(epoch: int, role: str) -> str:
    """The staging directory of one epoch; an epoch belongs to one claim, and so to one role."""
    return f"{STAGING}/{number_name(epoch)}-{role}"


def trash_path(number: int, directory: str = "") -> str:
    """Where entry `number` puts `directory` (relative to the root) when it replaces it."""
    return f"{TRASH}/{number_name(number)}/{directory}" if directory else f"{TRASH}/{number_name(number)}"


def table_directory(table: str, format_: str, directory: str = "", kind: FileKind = FileKind.DATA) -> str:
    """The directory, relative to the root, of a table's files of one format."""
    assert kind is not FileKind.DEAD_LETTERS, "dead letters belong to a topic: dead_letters_directory"
    suffix = LATE_SUFFIX if kind is FileKind.LATE else ""
    return f"{table}{suffix}/{format_}/{directory}" if directory else f"{table}{suffix}/{format_}"


def dead_letters_directory(topic: str) -> str:
    """Where a topic's dead letters are kept."""
    return f"{DEAD_LETTERS}/{topic}"


def final_directory(staged: StagedFile) -> str:
    """The directory a staged file is to be moved to."""
    if staged.kind is FileKind.DEAD_LETTERS:
        return dead_letters_directory(staged.topic)
    return table_directory(staged.table, staged.format, staged.directory, staged.kind)


def final_name(staged: StagedFile, number: int) -> str:
    """The name a file gets from the entry that brings it: two runs can never give the same one."""
    parts = (staged.topic, staged.partition, staged.first_offset, staged.last_offset, number)
    return f"{SEPARATOR.join(map(str, parts))}.{staged.format}"


def entry_number(name: str) -> int:
    """The number of the entry that brought a file of this name."""
    return int(name.rpartition(".")[0].rpartition(SEPARATOR)[2])


def compacted_name(staged: StagedFile, index: int, number: int) -> str:
    """The name of the `index`th file of a compacted directory, which holds records of many partitions."""
    parts = (staged.topic, f"c{index}", staged.first_offset, staged.last_offset, number)
    return f"{SEPARATOR.join(map(str, parts))}.{staged.format}"
