"""The benchmark of the loader: each program loads what it says, and goals are judged against the right peer."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import fastavro
import pyarrow.parquet as pq
import pytest
from bench.load.brokers import Millstream
from bench.load.loader_places import LocalDisk, Source
from bench.load.loader_runs import RATE, job_figures, run_job, run_script, write_job
from bench.load.loader_topic import PARTITIONS, TOPIC, values
from bench.load.turns import OURS, Turn, Turns
from bench.loader import ONE, ROWS, TWO, Bench, medians, planning, section
from tests.support import loads  # noqa: F401  for its reader of zstandard blocks

RECORDS = 6_000


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where modules are compiled to, once."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    folder = tmp_path_factory.mktemp("bench")
    broker = Millstream(folder)
    try:
        source = Source(broker, folder)
        source.make_topic(TOPIC, PARTITIONS, RECORDS, values(500))
        yield source
        source.stop()
    finally:
        broker.kill()


@pytest.mark.parametrize(
    ("program", "formats"), [("polars", "parquet"), ("fastavro", "parquet"), ("fastavro", "avro"), ("copy", "avro")]
)
def test_scripts_write_what_they_read(source: Source, work: Path, tmp_path: Path, program: str, formats: str) -> None:
    found = run_script(program, source, str(tmp_path), [formats], 2, work)
    (path,) = tmp_path.glob(f"*.{formats}")
    with path.open("rb") as file:
        rows = pq.read_metadata(file).num_rows if formats == "parquet" else sum(1 for _ in fastavro.reader(file))
    assert rows == found["records"] == RECORDS // PARTITIONS * 2
    assert found["bytes"] == path.stat().st_size
    assert 0 < found["cpu_s"] < found["process_cpu_s"]


def test_ours_is_the_command(source: Source, work: Path, tmp_path: Path) -> None:
    disk, job = LocalDisk(tmp_path), tmp_path / "job.toml"
    write_job(job, source, TOPIC, disk.fresh("loaded"), ("parquet",), 2)
    found = run_job(job, work)
    assert (found["outcome"], found["rows"], found["workers"]) == ("loaded", RECORDS, 2)
    assert 0 < found["splits_s"] < found["phases_s"]["loading"] < found["process_wall_s"]
    figures = job_figures(found)
    files = list((tmp_path / "loaded" / TOPIC).rglob("*.parquet"))
    assert figures["B/record"] == pytest.approx(sum(path.stat().st_size for path in files) / RECORDS)
    assert min(figures.values()) > 0
    assert run_job(job, work)["outcome"] == "nothing new"


def test_goals_are_judged_at_their_place() -> None:
    turns = Turns()
    for destination, program, rate in (
        ("file", OURS, 2.0e6),
        ("file", "spark", 0.3e6),
        ("file", "polars", 0.4e6),
        ("hdfs", OURS, 1.7e6),
        ("hdfs", "spark", 0.3e6),
    ):
        turns.keep(Turn("parquet", "kafka", program, 0, {RATE: rate}, destination=destination))
    for program, rate in ((ONE, 1.0e6), (TWO, 1.6e6)):
        turns.keep(Turn("scaling", "millstream", program, 0, {"records/s": rate}, destination="file"))
    met = {(broker, destination, program): met for _, broker, destination, program, _, _, met in medians(turns, ROWS)}
    assert met["kafka", "file", OURS] == "yes, yes, yes"
    assert met["kafka", "hdfs", OURS] == "yes, **no**, yes"
    assert met["millstream", "file", TWO] == "**no**"
    assert any("1,700,000" in line for line in section(turns))


def test_every_row_is_measured_somewhere(source: Source, tmp_path: Path) -> None:
    bench = Bench(Namespace(), tmp_path)
    bench.sources, bench.destinations = [source], [LocalDisk(tmp_path)]
    for row in ROWS.values():
        (place,) = bench.places(row)
        assert (place is None) == (not row.destinations)
        assert row.judged in row.programs_at(place) or not row.goals


def test_the_planner_plans_every_partition() -> None:
    assert planning(None, ROWS["planner"], None, OURS)["splits"] > 1  # type: ignore[arg-type]
