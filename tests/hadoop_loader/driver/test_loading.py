"""Tasks of a run carry what their workers have to know, also of what is met only in the run's middle."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from millstream.hadoop_loader.driver.attempts import Attempts
from millstream.hadoop_loader.driver.loading import Loading
from millstream.hadoop_loader.driver.observer import Observer
from millstream.hadoop_loader.engines import AttemptFinished, EngineEvent
from millstream.hadoop_loader.job import DestinationSettings, LoadJob, SourceSettings, ValueSettings
from millstream.hadoop_loader.splits import OffsetRange, Split, SplitResult, SplitTask, UnknownSchema


def table(*names: str) -> Any:
    """A table's newest generation first, then those that still take values."""
    return SimpleNamespace(tables=lambda: [SimpleNamespace(name=name) for name in names])


class SchemasThatGrow:
    """Learns that the topic's values go to one table more."""

    def __init__(self) -> None:
        self.tables = {"t": table("t.v2")}
        self.announcements: list[str] = []

    def learn(self, found: Sequence[UnknownSchema]) -> dict[str, str]:
        if found:
            self.tables["t"] = table("t.v2", "t")
        return {}


class MeetsASchema:
    """An engine whose first attempt meets a schema; the next one comes to its end."""

    workers = 1

    def __init__(self) -> None:
        self.tasks: list[SplitTask] = []
        self._waiting: list[SplitTask] = []

    def submit(self, tasks: Sequence[SplitTask]) -> None:
        self.tasks += tasks
        self._waiting += tasks

    def events(self, timeout_s: float) -> list[EngineEvent]:
        task = self._waiting.pop()
        met = () if task.attempt else (UnknownSchema("t", 1, "{}"),)
        return [AttemptFinished(SplitResult(task.split.number, task.attempt, (), (), unknown_schemas=met))]

    def stop(self) -> None:
        pass


def test_closed_directories_of_a_table_that_is_met_in_the_middle_are_known(tmp_path: Path) -> None:
    closed = {"t": frozenset({"hour=01"}), "t.v2": frozenset({"hour=02"})}
    engine = MeetsASchema()
    loading = Loading(
        job=LoadJob(
            name="j",
            source=SourceSettings(bootstrap_servers="127.0.0.1:9", topics=("t",)),
            value=ValueSettings(format="raw"),
            destination=DestinationSettings(uri=tmp_path.as_uri()),
        ),
        claim=SimpleNamespace(  # type: ignore[arg-type]
            run_id="r",
            staging=lambda split, attempt: f"staging/{split}-{attempt}",
            state=SimpleNamespace(closed_directories=closed.__getitem__),
        ),
        keeper=SimpleNamespace(check=lambda: None),  # type: ignore[arg-type]
        engine=engine,
        attempts=Attempts.of([Split(0, (OffsetRange("t", "id", 0, -1, 0, 10),))]),
        schemas=SchemasThatGrow(),  # type: ignore[arg-type]
        observer=Observer(),
        stop=threading.Event(),
    )

    loading.run()

    first, second = (task.closed_directories for task in engine.tasks)
    assert (set(first), set(second)) == ({"t.v2"}, {"t", "t.v2"})
    assert "hour=02" in first["t.v2"]
    assert "hour=01" in second["t"]
    assert "hour=02" not in second["t"]
