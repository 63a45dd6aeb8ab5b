"""The split runner: a split's ranges are read, and become staged files.

split_runner.py  run_split: the loop around it all      range_state.py  how far a range is, and what was in it
reading.py       the consumer, and when a range ends    gaps.py         why offsets brought nothing
sorting_out.py   fetched records to rows of files       dead_letters.py what could not be read, as Avro
without_pandas.py  what pyarrow would import for nothing
"""

from millstream.hadoop_loader.running.errors import (
    RangeGoneError,
    SplitError,
    SplitStoppedError,
    TopicRecreatedError,
    TopicUnreadableError,
)
from millstream.hadoop_loader.running.reading import ReadingBuffers
from millstream.hadoop_loader.running.split_runner import run_split

__all__ = [
    "RangeGoneError",
    "ReadingBuffers",
    "SplitError",
    "SplitStoppedError",
    "TopicRecreatedError",
    "TopicUnreadableError",
    "run_split",
]
