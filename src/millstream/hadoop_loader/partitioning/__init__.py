"""Into which directory each row goes, a whole batch at a time.

partitioner.py   what a job wants, to the groups of rows of a batch     time_directories.py   by a clock
field_directories.py   by values, Hive's `key=value`                    grouping.py   rows of one code together
"""

from millstream.hadoop_loader.partitioning.partitioner import Group, Partitioner, partitioner
from millstream.hadoop_loader.partitioning.time_directories import LATEST_MS, TimeDirectories

__all__ = ["LATEST_MS", "Group", "Partitioner", "TimeDirectories", "partitioner"]
