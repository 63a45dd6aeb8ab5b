"""Terms: which leader a record was written by, so that one that lost its leadership without knowing changes nothing.

A registry that is elected writes a NOOP with the header `millstream.leader`. The offset of that record is its term, and
every record it writes from then on carries it in the header `millstream.term`. The log decides: a record whose term is
older than the newest term before it comes from a former leader, and every instance passes it over, in the same place of
the same log, without clocks and without asking anybody. The writer reads it back like the others and knows as well.
Records without the header (Confluent's, Karapace's) hold as they are. Other registries ignore headers.

A NOOP of ours has a value that says how far ids were given out: an id is not used again when the schema that had the
highest one is gone for good and compacted away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

LEADER_HEADER: Final = "millstream.leader"
TERM_HEADER: Final = "millstream.term"
IDS_FIELD: Final = "maxIds"

Headers = Sequence[tuple[str, bytes | None]]


class Mark(NamedTuple):
    """What a record's headers say of its writer: `term` is None where nothing."""

    begins_term: bool = False
    term: int | None = None


NO_MARK: Final = Mark()


def read_mark(headers: Headers) -> Mark:
    """Read the headers of a record; those that are no term of ours count for nothing."""
    if not headers:
        return NO_MARK
    for name, value in headers:
        if name == LEADER_HEADER:
            return Mark(begins_term=True)
        if name == TERM_HEADER and value and value.isdigit() and len(value) <= 19:
            return Mark(term=int(value))
    return NO_MARK


def leader_headers(url: str) -> Headers:
    """Return the headers of the record that begins a term."""
    return [(LEADER_HEADER, url.encode())]


def term_headers(term: int) -> Headers:
    """Return the headers of a record written in `term`."""
    return [(TERM_HEADER, str(term).encode())]


def ids_value(ids: Mapping[str, int]) -> dict[str, Any]:
    """Return the value of a NOOP: the highest id given out, by context."""
    return {IDS_FIELD: dict(ids)}
