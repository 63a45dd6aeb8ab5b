"""Schemas that records name in their headers: values (or keys) as if the ids stood before them.

A serializer may leave a value alone and put the schema's GUID, or id, into the header `__value_schema_id` (of a key
`__key_schema_id`), with the path of the message behind it for Protobuf. Everything here reads ids that stand before
values; few topics do otherwise, so their values are copied behind a prefix each. A header that is there comes first,
as with every deserializer: without a prefix the first bytes of a value may look like one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from millstream.hadoop_loader.values.registered import RegisteredSchemas, UnusableSchemaError
from millstream.schemas.avro.headers import HEADER_NAMES, Field
from millstream.schemas.serdes.framing import FramingError, prefix, read_prefix

if TYPE_CHECKING:
    from millstream.hadoop_loader.values.fetched import Fetched
    from millstream.schemas.client import RegistryClient

NAMES_MAX: Final = 1_024
"""Contents of headers remembered with their prefixes; over it all are forgotten."""


class HeaderIds:
    """Puts the ids that headers name before values, or keys; one thread at a time."""

    def __init__(self, registry: RegistryClient | None, format_: str, field: Field) -> None:
        self._registered = RegisteredSchemas(registry, format_)
        self._field: Field = field
        self._header = f"its header {HEADER_NAMES[field].decode()}"
        # Behind the id only Protobuf has something: which message it is.
        self._has_path = format_ == "protobuf"
        # What a header holds -> the prefix, or why it names no schema.
        self._prefixes: dict[bytes, bytes | str] = {}

    def framed(self, fetched: Fetched) -> tuple[pa.Array, dict[int, str]] | None:
        """Return values with prefixes, null where a header names no schema, and why; None where no header names one.

        Raises RegistryRefusedError, RegistryUnavailableError.
        """
        contents = fetched.header(HEADER_NAMES[self._field])
        if contents is None:
            return None
        values = fetched.column(self._field)
        encoded = contents.dictionary_encode()
        found = [self._prefix_of(one) for one in encoded.dictionary.to_pylist()]
        prefixes = pa.array([one if isinstance(one, bytes) else None for one in found], pa.binary())
        is_bad = pa.array([isinstance(one, str) for one in found], pa.bool_()).take(encoded.indices)
        # Where there is no header the value stays as it is; a null stays null.
        before = pc.if_else(pc.is_null(contents), b"", prefixes.take(encoded.indices))
        made = pc.binary_join_element_wise(before, values.cast(pa.binary()), b"")
        refused = pc.indices_nonzero(pc.and_(pc.fill_null(is_bad, False), pc.is_valid(values)))
        reasons = {row: str(found[encoded.indices[row].as_py()]) for row in refused.to_pylist()}
        return made, reasons

    def _prefix_of(self, content: bytes) -> bytes | str:
        known = self._prefixes.get(content)
        if known is None:
            if len(self._prefixes) >= NAMES_MAX:
                self._prefixes.clear()
            known = self._prefixes[content] = self._look_up(content)
        return known

    def _look_up(self, content: bytes) -> bytes | str:
        try:
            schema_id, start = read_prefix(content)
        except FramingError as error:
            return f"{self._header} names no schema: {error}"
        path = content[start:]
        if path and not self._has_path:
            return f"{self._header} has {len(path)} bytes behind the name of a schema"
        try:
            number = self._registered.id_of(schema_id) if isinstance(schema_id, UUID) else schema_id
        except LookupError:
            return f"schema {schema_id} is not known"
        except UnusableSchemaError as error:
            return f"schema {schema_id} cannot be used: {error}"
        return prefix(number) + path
