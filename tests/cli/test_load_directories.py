"""`millstream load close` and `expire` as an operator runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.loads import Events
from tests.support.registry import registry

from millstream.cli.app import run
from millstream.testing import broker


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job file whose job was run once."""
    folder = tmp_path_factory.mktemp("lake")
    with broker() as kafka, registry(kafka.bootstrap_servers) as schemas:
        events = Events(kafka.bootstrap_servers, schemas.url, "clicks", partitions=1)
        events.send(180)
        path = folder / "clicks.toml"
        path.write_text(
            f"""
            name = "clicks"
            workers = 1
            source.bootstrap_servers = "{events.bootstrap}"
            source.topics = ["{events.topic}"]
            registry.urls = "{events.registry_url}"
            destination.uri = "{(folder / "lake").as_uri()}"
            partitioning.pattern = "hourly"
            late.close_after_s = 0
            """
        )
        assert run(["load", "run", "--quiet", str(path)]) == 0
    return path


def test_close_and_expire(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*arguments: str, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        assert run(["load", arguments[0], str(lake), *arguments[1:]]) == code, capsys.readouterr()
        out, err = capsys.readouterr()
        return out, err

    def as_json(*arguments: str) -> Any:
        return json.loads(told(*arguments, "--json")[0])

    root = lake.parent / "lake"
    day = "clicks/parquet/year=2026/month=01/day=01"
    out, err = told("close")
    assert out.splitlines() == ["1 directory is open", f"  {day}/hour=02"]
    assert "name those to close by --table or --directory" in err
    assert "there is clicks" in told("close", "--table", "click", code=1)[1]
    assert not (root / day / "hour=02" / "_SUCCESS").exists()

    listed = told("close", "--directory", f"{day}/hour=02", "--dry-run")[0]
    assert listed == told("close", "--directory", "year=2026/month=01/day=01/hour=02", "--dry-run")[0] == out
    out, _ = told("close", "--table", "clicks")
    assert out.startswith("closed 1 directory, ")
    assert (root / day / "hour=02" / "_SUCCESS").exists()
    assert told("close")[0].startswith("none is open")

    # The clock is that of the job's zone, and a directory expires once it has ended by then.
    out, _ = told("expire", "--before", "2026-01-01T01:59", "--dry-run")
    assert out.splitlines()[0].startswith("1 directory is old enough: 1 file, 60 rows")
    assert told("expire", "--before", "2026-01-01")[0].startswith("none is old enough")
    assert "no date" in told("expire", "--before", "yesterday", code=2)[1]
    assert "destination.retention_s" in told("expire", code=2)[1]

    assert "click: no such table" in told("compact", "--table", "click", code=1)[1]
    assert as_json("expire", "--before", "2026-01-01T02:00Z")["rows"] == 120
    assert [path.parent.name for path in root.glob("clicks/parquet/**/*.parquet")] == ["hour=02"]
    status = as_json("status", "--offline")
    assert [table["rows"] for table in status["tables"]] == [60]
    assert "nothing is red" in told("status", "--offline")[0]
