"""run_load: one run of a job, from the claim to the report."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from millstream.hadoop_loader.driver.observer import Observer
from millstream.hadoop_loader.driver.report import LoadReport, Outcome

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob


def run_load(job: LoadJob, *, observer: Observer | None = None, stop: threading.Event | None = None) -> LoadReport:
    """Load what the job's topics hold now and the destination does not, and return how it went.

    Setting `stop` ends the run soon with nothing of it committed; what it staged is deleted by the next one. Never raises
    for what a run may meet, be it the destination, the cluster, the registry or a worker: that is in the report.
    """
    raise RuntimeError(f"{job}{observer}{stop}{LoadReport}{Outcome}")
