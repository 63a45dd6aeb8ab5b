"""Hive's words for a table: types of columns, names, and the statements that make one and let it follow its schema.

    Arrow                        Hive                     Arrow                      Hive
    bool                         boolean                  date32                     date
    int32, int64, uint32         int, bigint, bigint      timestamp                  timestamp
    float, double                float, double            decimal                    decimal(p, s)
    string, enum                 string                   list, map, struct          array, map, struct
    binary, fixed                binary                   null                       int, as Parquet has it

Partition columns are strings: `month=01` is not `month=1`. A column that is a partition's key as well is only that, as
Hive wants it. Names are lower case with nothing but letters, digits and underscores: a topic `web.clicks` is the table
`web_clicks`.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa

if TYPE_CHECKING:
    from millstream.hadoop_loader.catalogs.known_tables import KnownTable
    from millstream.hadoop_loader.job import HiveSettings

VERSION_PROPERTY: Final = "millstream.version"
AVRO_SCHEMA_PROPERTY: Final = "avro.schema.literal"
PARTITION_TYPE: Final = "string"

_PLAIN: Final = (
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_int32, "int"),
    (pa.types.is_int64, "bigint"),
    (pa.types.is_uint32, "bigint"),
    (pa.types.is_float32, "float"),
    (pa.types.is_float64, "double"),
    (pa.types.is_string, "string"),
    (pa.types.is_binary, "binary"),
    (pa.types.is_fixed_size_binary, "binary"),
    (pa.types.is_date, "date"),
    (pa.types.is_timestamp, "timestamp"),
    (pa.types.is_null, "int"),
)


class HiveColumn(NamedTuple):
    """A column: its name, and its type as Hive writes it."""

    name: str
    type: str


def hive_name(name: str) -> str:
    """Return a name that Hive allows for a table."""
    return re.sub(r"[^a-z0-9_]", "_", name.lower())


def hive_type(type_: pa.DataType) -> str:
    """Return Hive's type for one of Arrow's."""
    if pa.types.is_dictionary(type_):
        return hive_type(type_.value_type)
    if isinstance(type_, pa.BaseExtensionType):
        return hive_type(type_.storage_type)
    if pa.types.is_decimal(type_):
        return f"decimal({type_.precision},{type_.scale})"
    if pa.types.is_struct(type_):
        return f"struct<{','.join(f'{field.name.lower()}:{hive_type(field.type)}' for field in type_)}>"
    if pa.types.is_map(type_):
        return f"map<{hive_type(type_.key_type)},{hive_type(type_.item_type)}>"
    if pa.types.is_list(type_):
        return f"array<{hive_type(type_.value_type)}>"
    for test, name in _PLAIN:
        if test(type_):
            return name
    raise ValueError(f"Hive has no type for {type_}")


def data_columns(table: KnownTable) -> list[HiveColumn]:
    """Return the columns of a table's files but for partition keys. Raises ValueError for types Hive does not have."""
    keys = {key.lower() for key in table.partition_keys or ()}
    return [
        HiveColumn(field.name.lower(), hive_type(field.type))
        for field in table.columns
        if field.name.lower() not in keys
    ]


def partition_columns(table: KnownTable) -> list[HiveColumn]:
    """Return the columns that directories stand for."""
    return [HiveColumn(key.lower(), PARTITION_TYPE) for key in table.partition_keys or ()]


def properties(table: KnownTable) -> dict[str, str]:
    """Return the properties of a table that say which version of its schema it has."""
    found = {"EXTERNAL": "TRUE", VERSION_PROPERTY: str(table.version)}
    if table.format == "avro":
        found[AVRO_SCHEMA_PROPERTY] = avro_literal(table)
    return found


def avro_literal(table: KnownTable) -> str:
    """Return the reader's schema of Avro files, without fields that are partition keys."""
    schema: Any = json.loads(table.avro_schema)
    keys = {key.lower() for key in table.partition_keys or ()}
    if isinstance(schema, dict) and schema.get("type") == "record":
        schema["fields"] = [_readable(field) for field in schema["fields"] if field["name"].lower() not in keys]
    return json.dumps(schema, separators=(",", ":"))


def _readable(field: dict[str, Any]) -> dict[str, Any]:
    """Let a field that may be null be missing from files as well."""
    type_ = field["type"]
    can_be_missing = isinstance(type_, list) and type_[:1] == ["null"] and "default" not in field
    return {**field, "default": None} if can_be_missing else field


def location_of(root_uri: str, settings: HiveSettings, path: str) -> str:
    """Return how readers call a directory of the root."""
    return f"{(settings.location_uri or root_uri).rstrip('/')}/{path}"


def full_name(table: KnownTable, settings: HiveSettings) -> tuple[str, str]:
    """Return the database and the name of a table."""
    return hive_name(settings.database), hive_name(f"{settings.table_prefix}{table.name}")


def create_statement(table: KnownTable, settings: HiveSettings, root_uri: str) -> str:
    """Return the statement that makes a table. Raises ValueError for types Hive does not have."""
    database, name = full_name(table, settings)
    lines = [f"CREATE EXTERNAL TABLE IF NOT EXISTS `{database}`.`{name}` ("]
    lines.append(",\n".join(f"  `{column.name}` {column.type}" for column in data_columns(table)))
    lines.append(")")
    keys = partition_columns(table)
    if keys:
        lines.append(f"PARTITIONED BY ({', '.join(f'`{key.name}` {key.type}' for key in keys)})")
    lines.append(f"STORED AS {table.format.upper()}")
    lines.append(f"LOCATION {_quoted(location_of(root_uri, settings, table.path))}")
    lines.append(f"TBLPROPERTIES ({_properties(table)});")
    return "\n".join(lines)


def evolve_statements(table: KnownTable, settings: HiveSettings) -> list[str]:
    """Return the statements that bring a table that is there to this version of its schema."""
    database, name = full_name(table, settings)
    set_properties = f"ALTER TABLE `{database}`.`{name}` SET TBLPROPERTIES ({_properties(table)});"
    if table.format == "avro":
        # Hive takes the columns from the schema.
        return [set_properties]
    columns = ", ".join(f"`{column.name}` {column.type}" for column in data_columns(table))
    cascade = " CASCADE" if table.partition_keys else ""
    return [f"ALTER TABLE `{database}`.`{name}` REPLACE COLUMNS ({columns}){cascade};", set_properties]


def script(table: KnownTable, settings: HiveSettings, root_uri: str) -> str:
    """Return all of it, as a script that may run any number of times."""
    database, name = full_name(table, settings)
    statements = [
        f"CREATE DATABASE IF NOT EXISTS `{database}`;",
        create_statement(table, settings, root_uri),
        *evolve_statements(table, settings),
    ]
    if table.partition_keys:
        statements.append(f"MSCK REPAIR TABLE `{database}`.`{name}`;")
    return "\n\n".join(statements) + "\n"


def _properties(table: KnownTable) -> str:
    found = properties(table)
    del found["EXTERNAL"]
    return ", ".join(f"{_quoted(key)}={_quoted(value)}" for key, value in found.items())


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
