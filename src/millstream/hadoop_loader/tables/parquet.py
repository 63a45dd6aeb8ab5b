"""The table's schema as columns that pyarrow, Spark and DuckDB read alike, across files of several versions of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.schemas.parsing.avro import parse_avro

if TYPE_CHECKING:
    import pyarrow as pa


def parquet_avro_schema(text: str) -> str:
    """Return the reader's schema whose columns are written to Parquet."""
    return text


def arrow_schema(text: str) -> pa.Schema:
    """Return the Arrow schema of a reader's schema."""
    from millstream.schemas.avro import avro_to_arrow_schema

    return avro_to_arrow_schema(text)


def is_same_encoding(one: str, other: str) -> bool:
    """Whether datums of the one Avro schema are, byte for byte, datums of the other, and mean the same."""
    return parse_avro(one).parsing_canonical_form == parse_avro(other).parsing_canonical_form
