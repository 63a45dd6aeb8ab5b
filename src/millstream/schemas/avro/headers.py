"""Schemas named in records' headers instead of before their values, for a whole batch.

A serializer that puts the schema's GUID (or id) into the header `__value_schema_id` or `__key_schema_id` leaves the
value alone in the record. The kernel knows schemas by number: ids are numbers already, GUIDs get negative ones.
"""

from __future__ import annotations

from array import array
from typing import Any, Final, Literal
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from millstream.schemas._kernels.avro_decoding import NOT_NUMBERED

Field = Literal["value", "key"]

HEADER_NAMES: Final = {"key": b"__key_schema_id", "value": b"__value_schema_id"}
NAMES_MAX: Final = 1_024
"""GUIDs, and other contents of headers, that are numbered at a time; over it all are forgotten."""

_ID_SIZE: Final = 5
_GUID_SIZE: Final = 17


class HeaderNames:
    """Numbers for what headers name schemas by."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._contents: list[bytes] = []

    @property
    def is_full(self) -> bool:
        """Whether there are so many that all should be forgotten."""
        return len(self._contents) >= NAMES_MAX

    def number(self, content: bytes) -> int:
        """Return the number of a header's content: the id that it holds, else a negative one."""
        if len(content) == _ID_SIZE and content[0] == 0 and content[1] < 0x80:
            return int.from_bytes(content[1:], "big")
        known = self._numbers.get(content)
        if known is None:
            self._contents.append(content)
            known = self._numbers[content] = -len(self._contents)
        return known

    def guid(self, number: int) -> UUID | None:
        """Return the GUID of a negative number; None where the header holds something else."""
        content = self._contents[-number - 1]
        return UUID(bytes=content[1:]) if len(content) == _GUID_SIZE and content[0] == 1 else None


def header_contents(headers: pa.Array | pa.ChunkedArray, field: Field) -> pa.BinaryArray | None:
    """Return what the header says that names the schema of each row, null where none does; None where no row has one.

    `headers` are lists of structs of a name and a value, or maps; of several headers of the name the last one counts,
    as a serializer adds its own behind those that were copied from another record.
    """
    if isinstance(headers, pa.ChunkedArray):
        headers = headers.combine_chunks()
    if not pa.types.is_list(headers.type) and not pa.types.is_map(headers.type):
        raise TypeError(f"headers are lists of structs of key and value, or maps, not {headers.type}")
    if pa.types.is_map(headers.type):
        headers = headers.cast(pa.list_(pa.struct([headers.type.key_field, headers.type.item_field])))
    rows = len(headers)
    items = headers.flatten()
    name = pa.scalar(HEADER_NAMES[field], pa.binary())
    named = pc.and_(pc.equal(items.field(0).cast(pa.binary()), name), pc.is_valid(items.field(1)))
    places = pc.indices_nonzero(named)
    if not len(places):
        return None
    holders = pc.list_parent_indices(headers).take(places)
    is_last = pa.concat_arrays([pc.not_equal(holders[1:], holders[:-1]), pa.array([True])])
    contents = items.field(1).take(places).filter(is_last).cast(pa.binary())
    is_named = pc.is_in(pc.indices_nonzero(pa.repeat(True, rows)), value_set=holders.cast(pa.uint64()))
    return pc.replace_with_mask(pa.nulls(rows, pa.binary()), is_named, contents)


def header_numbers(headers: pa.Array | pa.ChunkedArray, field: Field, names: HeaderNames) -> Any:
    """Return for each row the number of the schema that its headers name (int32s); empty where none does."""
    contents = header_contents(headers, field)
    if contents is None:
        return array("i")
    encoded = contents.dictionary_encode()
    numbers = pa.array([names.number(one) for one in encoded.dictionary.to_pylist()], pa.int32())
    found = pc.fill_null(numbers.take(encoded.indices), NOT_NUMBERED)
    return memoryview(found.buffers()[1]).cast("B").cast("i")[found.offset : found.offset + len(found)]
