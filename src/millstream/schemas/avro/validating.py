"""Datums looked at without making anything of them: what passes may go on as it is.

    checked = validate_datums(registry, batch.column("value"))
    checked.errors                # as AvroDecoder reports them

The loader copies datums into Avro files whose writer schema is theirs; one bad datum would end every reader there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from millstream.schemas.avro.decoder import NO_SIZES, AvroDecoder, BadDatum, Framing, Schemas, located
from millstream.schemas.avro.headers import Field
from millstream.schemas.parsing import ParsedSchema


class Validated(NamedTuple):
    """`rows`: which values are whole datums of their writer's schema, None for all; `errors`: why others are not."""

    rows: pa.Int64Array | None
    errors: list[BadDatum]


class AvroValidator:
    """Validates values; writers' schemas are compiled once, when first met. Threads may share it, in turn."""

    def __init__(
        self,
        schemas: Schemas | None = None,
        *,
        writer_schema: ParsedSchema | str | None = None,
        framing: Framing = "confluent",
    ) -> None:
        """Know writers' schemas by id; with framing "none" values are bare datums of `writer_schema`."""
        self._decoder = AvroDecoder(schemas, writer_schema=writer_schema, framing=framing, columns=False)

    def validate(
        self,
        values: pa.Array | pa.ChunkedArray,
        headers: pa.Array | pa.ChunkedArray | None = None,
        *,
        field: Field = "value",
    ) -> Validated:
        """Look at every byte: sizes, branches, symbols, blocks, UTF-8, and that nothing is left at the end.

        Recursive schemas may nest 128 deep. `headers` as `AvroDecoder.decode` takes them.
        """
        data, positions, sizes = located(values)
        return self.validate_located(data, positions, sizes, headers, field=field)

    def validate_located(
        self,
        data: Any,
        positions: Any,
        sizes: Any = NO_SIZES,
        headers: pa.Array | pa.ChunkedArray | None = None,
        *,
        field: Field = "value",
    ) -> Validated:
        """Validate values as `AvroDecoder.decode_located` takes them."""
        decoded = self._decoder.decode_located(data, positions, sizes, headers, field=field)
        return Validated(decoded.rows, decoded.errors)


def validate_datums(
    schemas: Schemas | ParsedSchema | str, values: pa.Array | pa.ChunkedArray, *, framing: Framing = "confluent"
) -> Validated:
    """Validate values once; AvroValidator keeps what it compiled. A schema instead of a source: bare datums of it."""
    if isinstance(schemas, (str, ParsedSchema)):
        return AvroValidator(writer_schema=schemas, framing="none").validate(values)
    assert isinstance(schemas, Mapping) or callable(schemas) or hasattr(schemas, "schema"), schemas
    return AvroValidator(schemas, framing=framing).validate(values)
