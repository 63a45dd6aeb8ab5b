"""Engines run splits: on processes of this machine, or on a Spark cluster. Both run the same code and tell the same.

    engine.py    what an engine is, and what it tells the driver
    local.py     worker processes of this machine, one per core unless the job says otherwise
    worker.py    such a process; `task_runner.py` is what every worker does with a task
    spark.py     tasks of a Spark job (PySpark 4), `engine = "spark"`; `spark_session.py` is the session they run on

An engine decides nothing: which split runs, how often it is tried and what becomes of its files is the driver's.
"""

from millstream.hadoop_loader.engines.engine import (
    AttemptFailed,
    AttemptFinished,
    AttemptProgressed,
    Engine,
    EngineError,
    EngineEvent,
    open_engine,
)

__all__ = [
    "AttemptFailed",
    "AttemptFinished",
    "AttemptProgressed",
    "Engine",
    "EngineError",
    "EngineEvent",
    "open_engine",
]
