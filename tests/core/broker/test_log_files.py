"""Log files: what a line looks like, rotation, and that nobody waits for a slow disk."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from millstream.core.broker.log_files import LogFiles
from millstream.core.config import BrokerConfig
from millstream.testing.kafka import wait_until

logger = logging.getLogger("millstream.test")


@pytest.fixture(autouse=True)
def root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    yield
    assert (root.level, root.handlers) == before, "close puts the root logger back"


def test_a_text_line(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "logs" / "server.log")
    logger.info("deleted %d segments", 3, extra={"fields": {"topic": "flights", "partition": 2}})
    logger.debug("not shown at level info")
    files.close()

    (line,) = (tmp_path / "logs" / "server.log").read_text().splitlines()
    time, _, rest = line.partition(" ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert rest == "INFO    millstream.test deleted 3 segments  topic=flights partition=2"


def test_a_json_line_holds_the_traceback(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "server.log", form="json", level="debug")
    try:
        int("what\nhappened")
    except ValueError:
        logger.exception("it failed", extra={"fields": {"path": tmp_path}})
    files.close()

    (line,) = (tmp_path / "server.log").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == ("ERROR", "millstream.test", "it failed")
    assert entry["path"] == str(tmp_path)
    assert "ValueError: invalid literal for int()" in entry["exception"]


def test_files_are_rotated_and_bounded(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "server.log", size_bytes_max=1000, count_max=3)
    for index in range(100):
        logger.info("line %d of a hundred", index)
    files.close()

    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["server.log", "server.log.1", "server.log.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    assert "line 99" in (tmp_path / "server.log").read_text()


def test_a_slow_disk_costs_lines_and_says_how_many(tmp_path: Path) -> None:
    stuck, go_on = threading.Event(), threading.Event()

    class SlowDisk(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            stuck.set()
            assert go_on.wait(60)
            return True

    files = LogFiles(tmp_path / "server.log", lines_count_max=5)
    files._target.addFilter(SlowDisk())
    logger.info("the first, which the disk holds up")
    assert stuck.wait(60)
    for index in range(8):
        logger.info("line %d", index)
    go_on.set()
    wait_until(files._lines.empty, 60, "the queue has room again")
    logger.info("the next that fits")
    files.close()

    lines = (tmp_path / "server.log").read_text().splitlines()
    assert len(lines) == 1 + 5 + 1
    assert lines[-1].endswith("the next that fits (3 lines before this one were dropped: the log is too slow)")


def test_it_is_configured_by_millstream_log(tmp_path: Path) -> None:
    config = BrokerConfig(
        {
            "log.dirs": str(tmp_path),
            "millstream.log.file": str(tmp_path / "server.log"),
            "millstream.log.format": "json",
            "millstream.log.level": "warning",
        }
    )
    files = LogFiles.from_config(config)
    logger.info("not shown")
    logger.warning("shown")
    files.close()

    assert json.loads((tmp_path / "server.log").read_text())["message"] == "shown"


def test_a_file_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        LogFiles(tmp_path / "file" / "server.log")
