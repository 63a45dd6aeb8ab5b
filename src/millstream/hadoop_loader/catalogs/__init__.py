"""Catalogs: who else is told of the tables. The commit log decides; what a catalog missed, the next call makes up for.

known_tables.py   tables, columns and directories as of a number of the log      telling.py   all of it, after a commit
hive.py           Hive's types and statements                 metastore.py   tables and partitions, over Thrift
iceberg.py        tables of Iceberg over the same Parquet files
"""

from millstream.hadoop_loader.catalogs.known_tables import KnownTable, known_tables
from millstream.hadoop_loader.catalogs.telling import CatalogError, tell_catalogs

__all__ = ["CatalogError", "KnownTable", "known_tables", "tell_catalogs"]
