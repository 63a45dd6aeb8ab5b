"""The schemas of a table's Parquet files put together, which may be of several versions of the table."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa


def unified(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """One schema that files of all these can be read with: columns of any, types as wide as they must be.

    Where one file has a column as a dictionary and another as plain values, it becomes plain values. Raises
    ArrowInvalid or ArrowTypeError for columns that do not go together.
    """
    given = list(schemas)
    try:
        return pa.unify_schemas(given, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return pa.unify_schemas([plain_schema(schema) for schema in given], promote_options="permissive")


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The columns without dictionaries, at any depth."""
    return pa.schema([_plain(field) for field in schema])


def _plain(field: pa.Field) -> pa.Field:
    type_ = field.type
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    elif pa.types.is_struct(type_):
        type_ = pa.struct([_plain(child) for child in type_])
    elif pa.types.is_map(type_):
        type_ = pa.map_(_plain(type_.key_field), _plain(type_.item_field))
    elif pa.types.is_list(type_):
        type_ = pa.list_(_plain(type_.value_field))
    elif pa.types.is_large_list(type_):
        type_ = pa.large_list(_plain(type_.value_field))
    return field.with_type(type_)
