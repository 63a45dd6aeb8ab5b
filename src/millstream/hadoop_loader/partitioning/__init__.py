"""Into which directory each row goes, a whole batch at a time.

partitioner.py   what a job wants, to the groups of rows of a batch     time_directories.py   by a clock
field_directories.py   by values, Hive's `key=value`                    field_times.py   fields that say a time
grouping.py   rows of one code together                          checking.py   fields that no row could be placed by
clocks.py   what the clocks of zones show
"""

from millstream.hadoop_loader.partitioning.checking import hidden_by_directories, why_not_placed
from millstream.hadoop_loader.partitioning.clocks import LATEST_MS
from millstream.hadoop_loader.partitioning.partitioner import Group, Partitioner, partitioner
from millstream.hadoop_loader.partitioning.time_directories import TimeDirectories

__all__ = [
    "LATEST_MS",
    "Group",
    "Partitioner",
    "TimeDirectories",
    "hidden_by_directories",
    "partitioner",
    "why_not_placed",
]
