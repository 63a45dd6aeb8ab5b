"""What travels with tasks."""

from __future__ import annotations

import pickle

from millstream.hadoop_loader.splits import DirectoryNames


def test_names_of_directories_travel_small_and_are_unpacked_once() -> None:
    names = [
        f"year=2026/month={month:02d}/day={day:02d}/minute={minute:04d}"
        for month in range(12)
        for day in range(28)
        for minute in range(0, 1440, 5)
    ]
    packed = pickle.dumps(DirectoryNames(names))

    assert len(packed) < sum(map(len, names)) / 10
    unpacked = pickle.loads(packed)
    assert all(name in unpacked for name in names)
    assert "year=2026/month=12/day=01/minute=0000" not in unpacked
    assert len(unpacked) == len(names)
    assert pickle.loads(packed) is unpacked


def test_none_are_none() -> None:
    unpacked = pickle.loads(pickle.dumps(DirectoryNames()))

    assert "" not in unpacked
    assert len(unpacked) == 0
    # The directory of a table that nothing partitions.
    assert "" in pickle.loads(pickle.dumps(DirectoryNames([""])))
