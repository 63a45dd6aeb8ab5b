"""Which generation of a topic's table each of fetched values goes to, by the writers that they name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from millstream.hadoop_loader.tables.writers import writer_number
from millstream.hadoop_loader.values.located import FRAMED_SIZE, schema_ids
from millstream.schemas.serdes.framing import FramingError, read_indexes

if TYPE_CHECKING:
    from millstream.hadoop_loader.tables import TableVersion
    from millstream.hadoop_loader.values.fetched import Fetched


UNFRAMED_ID: Final = 0  # of the one writer's schema where values name none
_FIRST_MESSAGE: Final = b"\0"


def tables_of(version: TableVersion, *, framed: bool) -> list[TableVersion]:
    """Return the generations that values may be of; those that name no schema are all of the job's own."""
    if framed:
        return list(version.tables())
    return [version.table_of(UNFRAMED_ID) or version]


def split_by_table(
    version: TableVersion, tables: Sequence[TableVersion], fetched: Fetched, *, by_message: bool = False
) -> Iterator[tuple[TableVersion, pa.Int64Array | None]]:
    """Yield each table with its rows (None: all); those of an id that none has go to the first, which says why not.

    `by_message`: the values are of Protobuf, and name messages too.
    """
    if by_message:
        ids, named = _messages(fetched.value_column)
    else:
        ids = schema_ids(fetched.values)
        named = {one: one for one in ids.drop_null().unique().to_pylist()}
    homes: dict[str, list[int]] = {}
    for one, number in named.items():
        home = version.table_of(number)
        homes.setdefault(version.name if home is None else home.name, []).append(one)
    if len(homes) == 1 and not ids.null_count:
        (name,) = homes
        yield next(table for table in tables if table.name == name), None
        return
    for index, table in enumerate(tables):
        wanted = pc.is_in(ids, pa.array(homes.get(table.name, []), pa.int32()))
        if index == 0:
            wanted = pc.or_(wanted, pc.is_null(ids))
        rows = pc.indices_nonzero(wanted).cast(pa.int64())
        if len(rows):
            yield table, rows


def _messages(values: pa.Array) -> tuple[pa.Int32Array, dict[int, int]]:
    """Return what stands for each value's writer, null where it names none, and the numbers of these."""
    found: dict[int, int] = {}
    # Nearly all are of the first message of a few schemas: those are told by so many bytes.
    heads = pc.binary_slice(values, 0, FRAMED_SIZE + 1).dictionary_encode()
    named = [
        _message(head, found) if head[FRAMED_SIZE:] == _FIRST_MESSAGE else None for head in heads.dictionary.to_pylist()
    ]
    ids = pa.array(named, pa.int32()).take(heads.indices)
    others = pc.and_(pc.is_null(ids), pc.is_valid(values))
    if pc.any(others).as_py():
        paths = [_message(value, found) for value in values.filter(others).to_pylist()]
        ids = pc.replace_with_mask(ids, others, pa.array(paths, pa.int32()))
    return ids, {one: number for number, one in found.items()}


def _message(value: bytes, found: dict[int, int]) -> int | None:
    if len(value) <= FRAMED_SIZE or value[0] != 0:
        return None
    try:
        number = writer_number(int.from_bytes(value[1:FRAMED_SIZE], "big"), read_indexes(value, FRAMED_SIZE)[0])
    except FramingError:
        return None
    return found.setdefault(number, len(found))
