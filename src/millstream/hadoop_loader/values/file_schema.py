"""What a table's files consist of: the fields of its values, and behind them key and metadata columns.

                       Avro                                        Parquet
    values             the fields of the table's schema            its columns, `TableVersion.arrow_schema`
    no schema          one field of bytes or text                  one column of it
    no record          as it is; with columns behind it a record   one column, `value`
    tombstones         files of their own, where every field of    files of their own, where every column of the value
                       the value may be null                       may be null

So a value's datum stays what it is, whatever stands behind it; columns that are never null cost nothing for it; and a
reader that is given a table's schema with fields that may be null reads all its files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from millstream.hadoop_loader.values.metadata import ExtraColumn, extra_columns
from millstream.schemas.avro import AvroEncoder

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob
    from millstream.hadoop_loader.tables import TableVersion

VALUE_COLUMN: Final = "value"
_TEXT: Final = pa.schema([pa.field(VALUE_COLUMN, pa.string())])
_BYTES: Final = pa.schema([pa.field(VALUE_COLUMN, pa.binary())])


@dataclass(frozen=True, slots=True)
class FileSchema:
    """The schemas of one table's files.

    `avro` and `parquet` are those of rows, the others those of rows without a value. `value_columns` are those of
    `parquet` that come from the value, `value_avro` what of `avro` does.
    """

    avro: str
    avro_tombstones: str
    parquet: pa.Schema
    parquet_tombstones: pa.Schema
    value_columns: pa.Schema
    value_avro: str
    extras: tuple[ExtraColumn, ...]
    # The datum of a value that is not there, under `avro_tombstones`.
    null_datum: bytes


def file_schema(job: LoadJob, table: TableVersion) -> FileSchema:
    """Return the schemas of a table's files, by its job."""
    extras = extra_columns(job, table)
    if table.avro_schema is None:
        text, columns = _without_schema(job, table.topic)
        if extras and has_schemas(job):
            # What the values' columns are nobody knows yet, and none of theirs is called as a stand-in would be.
            text, columns = {**text, "fields": []}, pa.schema([])
    else:
        text, arrow = json.loads(table.avro_schema), table.arrow_schema()
        assert arrow is not None, table.name
        columns = arrow
    tombstones, null_datum = _nullable(text, table.topic)
    added = [extra.field for extra in extras]
    return FileSchema(
        avro=json.dumps(_with_extras(text, extras, table.topic)),
        avro_tombstones=json.dumps(_with_extras(tombstones, extras, table.topic)),
        parquet=pa.schema([*columns, *added]),
        parquet_tombstones=pa.schema([*(field.with_nullable(True) for field in columns), *added]),
        value_columns=columns,
        value_avro=json.dumps(text),
        extras=extras,
        null_datum=null_datum,
    )


def has_schemas(job: LoadJob) -> bool:
    """Whether values are of schemas, also while none of them is known."""
    value = job.value
    return value.format != "raw" and (value.framing == "registry" or value.schema is not None)


def why_columns_meet(job: LoadJob, table: TableVersion) -> str | None:
    """Return why a table's files would have two columns of one name; None where they have not.

    Names that differ in upper and lower case alone are one to Hive and Spark.
    """
    text = _without_schema(job, table.topic)[0] if table.avro_schema is None else json.loads(table.avro_schema)
    is_record = isinstance(text, dict) and text.get("type") == "record"
    names = [field["name"] for field in text["fields"]] if is_record else [VALUE_COLUMN]
    fields = {name.casefold(): name for name in names}
    for extra in extra_columns(job, table):
        field = fields.get(extra.field.name.casefold())
        if field is None:
            continue
        if extra.source == "read_key":
            return (
                f"table {table.name}: its values have a field {field!r}, and the key's column is "
                f"{extra.field.name!r} too; set key.column"
            )
        return (
            f"table {table.name}: its values have a field {field!r}, as metadata_columns has; "
            f"leave {extra.source!r} out of it"
        )
    return None


def record_name(topic: str) -> str:
    """Return a name that Avro allows, for records of a topic whose values have none."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", topic)
    return name if re.match(r"[A-Za-z_]", name) else f"_{name}"


def _without_schema(job: LoadJob, topic: str) -> tuple[Any, pa.Schema]:
    is_text = job.value.format == "json"
    columns = _TEXT if is_text else _BYTES
    name = job.value.column or VALUE_COLUMN
    kind = "string" if is_text else "bytes"
    field = {"name": name, "type": ["null", kind], "default": None}
    return (
        {"type": "record", "name": record_name(topic), "fields": [field]},
        pa.schema([columns.field(0).with_name(name)]),
    )


def _with_extras(schema: Any, extras: Sequence[ExtraColumn], topic: str) -> Any:
    if not extras:
        return schema
    added = [extra.avro_field for extra in extras]
    if isinstance(schema, dict) and schema.get("type") == "record":
        return {**schema, "fields": [*schema["fields"], *added]}
    return {
        "type": "record",
        "name": record_name(topic),
        "fields": [{"name": VALUE_COLUMN, "type": schema}, *added],
    }


def _nullable(schema: Any, topic: str) -> tuple[Any, bytes]:
    """Return a record of which every field may be null, and its datum with all of them null."""
    if isinstance(schema, dict) and schema.get("type") == "record":
        fields = schema["fields"]
    else:
        fields = [{"name": VALUE_COLUMN, "type": schema}]
        schema = {"type": "record", "name": record_name(topic)}
    out: list[dict[str, Any]] = []
    datum = bytearray()
    for field in fields:
        type_ = field["type"]
        if type_ == "null" or type_ == {"type": "null"}:
            out.append(field)
            continue
        branches = type_ if isinstance(type_, list) else [type_]
        if "null" not in branches:
            branches = ["null", *branches]
            field = {key: value for key, value in field.items() if key != "default"}
        out.append({**field, "type": branches})
        datum.append(2 * branches.index("null"))
    return {**schema, "fields": out}, bytes(datum)


def tail_encoder(schema: FileSchema) -> AvroEncoder:
    """Return what encodes the columns behind the value's as the end of a datum."""
    fields = [extra.avro_field for extra in schema.extras]
    return AvroEncoder(json.dumps({"type": "record", "name": "Tail", "fields": fields}))


def tail_batch(schema: FileSchema, extras: Sequence[pa.Array]) -> pa.RecordBatch:
    """Return those columns as `tail_encoder` takes them."""
    return pa.RecordBatch.from_arrays(list(extras), schema=pa.schema([extra.field for extra in schema.extras]))
