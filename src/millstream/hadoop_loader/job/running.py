"""[spark], [schedule], [report]: who does the work, when, and where it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from millstream.hadoop_loader.job.secret import Secret
from millstream.hadoop_loader.job.setting import setting

# Of a schedule. Clocks and waits take no time without end.
INTERVAL_S_MAX: Final = 366 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkSettings:
    """Of `engine = "spark"`: the session that runs splits as tasks (extra `spark`)."""

    master: str | None = setting(
        "The cluster, as in `yarn` or `local-cluster[2,1,1024]`; what `spark-submit` says otherwise.", default=None
    )
    config: Mapping[str, str | Secret] = setting(
        "Spark's own properties, by their names; those that are secret are references.",
        default_factory=dict,
        kind="table",
        example='{ spark.executor.memory = "1g" }',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSettings:
    """When `millstream load serve` runs the job: one of `cron` and `every_s`."""

    cron: str | None = setting(
        "A cron expression of five fields (or six, seconds first), in `zone`.", default=None, example='"*/15 * * * *"'
    )
    every_s: float | None = setting(
        "Seconds from the start of one run to the start of the next.", default=None, at_least=1, at_most=INTERVAL_S_MAX
    )
    zone: str = setting("The zone of `cron`, as in `Europe/Berlin`.", default="UTC")
    jitter_s: float = setting(
        "Each run starts up to so much later, by chance, so that many jobs do not start together.",
        default=0.0,
        at_least=0,
        at_most=INTERVAL_S_MAX,
    )
    catch_up: str = setting(
        "When a start was missed (the service was down, or the last run took longer): `once` runs at once, `skip`"
        " waits for the next time.",
        default="once",
        choices=("once", "skip"),
    )
    retry_after_s: float = setting(
        "After a run that failed: how soon it is tried again, doubled with each failure up to the regular time;"
        " 0: at the regular time only.",
        default=60.0,
        at_least=0,
        at_most=INTERVAL_S_MAX,
    )
    stop_grace_s: float = setting(
        "On SIGTERM a run has so long to come to its end; then it is left, and the next run loads it all.",
        default=120.0,
        at_least=0,
        at_most=INTERVAL_S_MAX,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """Where each run's report and the metrics go, beside the terminal."""

    directory: str | None = setting("A local directory that gets a JSON report of each run.", default=None)
    metrics_file: str | None = setting(
        "A file that gets the Prometheus metrics after each run, for the node exporter's textfile collector.",
        default=None,
    )
