"""Tables: which schema the files of a topic have, and how it follows its writers.

merging.py   the document the commit log keeps: generations of the table, every writer's schema; `merge`
joining.py   two Avro schemas to the least one that reads both, and what of it Parquet's readers cannot follow
parquet.py   the table's schema as columns that pyarrow, Spark and DuckDB read alike
naming.py    their directories' names, and topics that are named like another's
version.py   TableVersion, what a worker gets               changes.py   what is announced
keys.py      the column of keys whose schemas the registry has
writers.py   numbers of writers: a schema's id, and the message of Protobuf
"""

from millstream.hadoop_loader.tables.changes import ChangeKind, SchemaChange, SchemaChangedError
from millstream.hadoop_loader.tables.merging import Document, Merged, all_tables, merge, table_version
from millstream.hadoop_loader.tables.naming import why_no_table
from millstream.hadoop_loader.tables.sources import avro_of_text
from millstream.hadoop_loader.tables.version import SourceSchema, TableVersion

__all__ = [
    "ChangeKind",
    "Document",
    "Merged",
    "SchemaChange",
    "SchemaChangedError",
    "SourceSchema",
    "TableVersion",
    "all_tables",
    "avro_of_text",
    "merge",
    "table_version",
    "why_no_table",
]
