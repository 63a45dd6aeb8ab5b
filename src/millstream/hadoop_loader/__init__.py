"""The parallel, exactly-once loader into Avro and Parquet on HDFS.

    from millstream.hadoop_loader import LoadJob, run_load

    report = run_load(LoadJob.load("flights.toml").resolved(os.environ))

Names are loaded on first use. `docs/loader.md` is for operators, `docs/design.md` has the journey of a load.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

# Where each public name is; `__init__.pyi` says the same to type checkers.
_HOMES: Final = {
    "CompactionRun": "millstream.hadoop_loader.driver.compacting",
    "LoadJob": "millstream.hadoop_loader.job",
    "LoadReport": "millstream.hadoop_loader.driver.report",
    "Outcome": "millstream.hadoop_loader.driver.report",
    "close_directories": "millstream.hadoop_loader.driver.directories",
    "dataset": "millstream.hadoop_loader.commit",
    "expire_directories": "millstream.hadoop_loader.driver.directories",
    "plan_load": "millstream.hadoop_loader.driver.dry_run",
    "replay_dead_letters": "millstream.hadoop_loader.driver.replay",
    "run_compaction": "millstream.hadoop_loader.driver.compacting",
    "run_load": "millstream.hadoop_loader.driver.load",
    "status_of": "millstream.hadoop_loader.driver.status",
    "verify_destination": "millstream.hadoop_loader.driver.verify",
}

__all__ = [*_HOMES]  # noqa: PLE0604  the stub has the same names


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(_HOMES)
