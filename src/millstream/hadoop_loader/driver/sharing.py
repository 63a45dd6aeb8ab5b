"""Files of one partition that hold a record both, and where the commit log says that they may.

A log that was cut below what was loaded of it, by an unclean election, has two histories. Where the job says to go on
(`source.truncated`), rows of both stay, at the same offsets. Others may verify that, whatever their jobs say, and when
entries of then are long gone: so the entry that moves a position back names the least offset from which on there are
several histories, in the document CUTS + topic:

    {topic id: {partition: offset}}
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from millstream.hadoop_loader.commit.names import entry_number

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import Position, TableFile, TableState
    from millstream.hadoop_loader.splits import TopicPartitionId

# No topic's name has a slash.
CUTS: Final = "_cuts/"
NO_CUT: Final = sys.maxsize
"""An offset behind all of a partition that was never cut."""


def cut_offset(state: TableState, topic: str, topic_id: str, partition: int) -> int:
    """From where on a partition's files may hold records of several histories, or NO_CUT."""
    found: int = state.schemas.get(f"{CUTS}{topic}", {}).get(topic_id, {}).get(str(partition), NO_CUT)
    return found


def cut_documents(
    state: TableState, moved: Mapping[TopicPartitionId, Position], topics: Mapping[str, str]
) -> dict[str, Any]:
    """The documents of topics of which positions are `moved` back; `topics` are names by topic id."""
    documents: dict[str, Any] = {}
    for key, position in moved.items():
        before = state.position(*key)
        if before is None or position.offset >= before.offset:
            continue
        topic, topic_id, partition = topics[key.topic_id], key.topic_id, str(key.partition)
        name = f"{CUTS}{topic}"
        document = documents.get(name, state.schemas.get(name, {}))
        cuts = document.get(topic_id, {})
        least = min(position.offset, cuts.get(partition, NO_CUT))
        documents[name] = {**document, topic_id: {**cuts, partition: least}}
    return documents


def files_sharing_offsets(files: Iterable[TableFile], cut: int = NO_CUT) -> Iterator[tuple[TableFile, TableFile]]:
    """Yield pairs of one partition's files that hold a record both, as far as their offsets and rows prove it.

    Ranges may overlap: tombstones are in files of their own, and a dead letter that is replayed comes from among rows.
    From offset `cut` on, files of two entries may have what two histories had there.
    """
    # Those whose range is not over yet, by their first offsets.
    open_: list[TableFile] = []
    for file in sorted(files, key=lambda one: (one.first_offset, one.last_offset)):
        open_ = [one for one in open_ if one.last_offset >= file.first_offset]
        for one in open_:
            # A run reads one history.
            is_of_one = entry_number(one.name) == entry_number(file.name)
            if _must_share(one, file, NO_CUT if is_of_one else cut):
                yield one, file
        open_.append(file)


def _must_share(one: TableFile, other: TableFile, cut: int) -> bool:
    """Whether two files with overlapping ranges both have an offset below `cut`, wherever their other records lie."""
    first, last = min(one.first_offset, other.first_offset), max(one.last_offset, other.last_offset)
    twice_from = max(one.first_offset, other.first_offset, cut)
    may_be_twice = max(0, min(one.last_offset, other.last_offset) + 1 - twice_from)
    if one.rows + other.rows > last - first + 1 + may_be_twice:
        return True
    return _surely_has_an_end_of(one, other, cut) or _surely_has_an_end_of(other, one, cut)


def _surely_has_an_end_of(one: TableFile, other: TableFile, cut: int) -> bool:
    """Whether a file's first or last offset, which it has, is below `cut` and for certain in `one` too."""
    ends = {end for end in (other.first_offset, other.last_offset) if end < cut}
    if one.rows >= one.last_offset - one.first_offset + 1:
        return any(one.first_offset <= end <= one.last_offset for end in ends)
    return not ends.isdisjoint((one.first_offset, one.last_offset))
