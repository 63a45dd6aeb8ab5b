"""Values and keys to rows: columns for Parquet, datums for Avro, and what could not be read.

file_schema.py  what a file's rows consist of: the value's fields, behind them key and metadata columns
metadata.py     those columns, keys.py           rows.py   what readers make of records
reading.py      a topic's reader                 avro_values.py, framed_values.py, protobuf_values.py, plain_values.py
registered.py   schemas as the registry has them, and whose fault it is where it gives none
header_ids.py   schemas that headers name        typed_json.py, json_objects.py   JSON by the schema of a job
"""

from millstream.hadoop_loader.values.file_schema import FileSchema, file_schema
from millstream.hadoop_loader.values.reading import ValueReader, value_reader
from millstream.hadoop_loader.values.rows import BadRow, TableRows, UnknownSchemaError

__all__ = ["BadRow", "FileSchema", "TableRows", "UnknownSchemaError", "ValueReader", "file_schema", "value_reader"]
