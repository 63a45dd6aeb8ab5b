"""Which generation of a topic's table each of fetched values goes to, by the schema ids that they name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from millstream.hadoop_loader.values.located import schema_ids

if TYPE_CHECKING:
    from millstream.hadoop_loader.tables import TableVersion
    from millstream.hadoop_loader.values.fetched import Fetched


UNFRAMED_ID: Final = 0  # of the one writer's schema where values name none


def tables_of(version: TableVersion, *, framed: bool) -> list[TableVersion]:
    """Return the generations that values may be of; those that name no schema are all of the job's own."""
    if framed:
        return list(version.tables())
    return [version.table_of(UNFRAMED_ID) or version]


def split_by_table(
    version: TableVersion, tables: Sequence[TableVersion], fetched: Fetched
) -> Iterator[tuple[TableVersion, pa.Int64Array | None]]:
    """Yield each table with its rows (None: all); those of an id that none has go to the first, which says why not."""
    ids = schema_ids(fetched.values)
    named = ids.drop_null().unique().to_pylist()
    homes: dict[str, list[int]] = {}
    for schema_id in named:
        home = version.table_of(schema_id)
        homes.setdefault(version.name if home is None else home.name, []).append(schema_id)
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
