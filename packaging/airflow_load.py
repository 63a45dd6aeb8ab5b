"""An Airflow DAG (2.9 or later): every load job of a directory, each quarter of an hour. Copy it to the DAGs folder.

A job is one task, and one process. `millstream load run` ends with 0 where it loaded or there was nothing new, with 4
where another run is at work (the task is skipped); anything else fails the task, which is then tried again: that is
always safe.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from airflow import DAG

try:
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:  # before Airflow 3
    from airflow.operators.bash import BashOperator

JOBS = Path("/etc/millstream/jobs")

with DAG(
    dag_id="millstream_load",
    schedule="*/15 * * * *",
    start_date=datetime(2026, 1, 1),
    # A run loads all there is: intervals that were missed need none of their own.
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=2), "retry_exponential_backoff": True},
):
    for job in sorted(JOBS.glob("*.toml")):
        BashOperator(
            task_id=f"load_{job.stem}",
            bash_command=f"millstream load run --quiet {job}",
            skip_on_exit_code=4,
            execution_timeout=timedelta(hours=2),
        )
