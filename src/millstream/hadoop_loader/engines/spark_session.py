"""The Spark session that splits run on: the one there is, or one made as the job says.

A process has one Spark context at a time. The one that a notebook or `spark-submit` made is used as it is, and left.
One that is made for a job is shared with the other jobs of the process that ask for the same settings, and is stopped
with the last of them.

Secrets among a job's Spark settings stay out of sight. PySpark starts its JVM by a command line that has every setting
it knows by then in it, for all who may list processes; so the JVM is started with those that are no secrets, and the
others are set in it. Their names are added to what Spark leaves out of its UI and its event log. Settings that Spark
itself puts on command lines, those of executors, can be no secrets and are refused as such.
"""

from __future__ import annotations

import importlib.util
import re
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from millstream.hadoop_loader.engines.engine import EngineError
from millstream.hadoop_loader.engines.task_runner import WORKER_ENVIRONMENT
from millstream.hadoop_loader.job import Secret

if TYPE_CHECKING:
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

    from millstream.hadoop_loader.job import LoadJob

SHIP: Final = "spark.millstream.ship"
ARCHIVE: Final = "millstream_package"
REDACTION: Final = "spark.redaction.regex"
_REDACTION_UNSET: Final = "(?i)secret|password|token|access[.]?key"  # what Spark takes where nobody said which
# Spark's UI shows these settings to Hadoop's and Hive's clients a second time, without the first part of their names.
_PASSED_ON: Final = {"spark.hadoop.": "", "spark.hive.": "hive."}
_SHIPPED_SUFFIXES: Final = (".py", ".so", ".pyd")

Release = Callable[[], None]


@dataclass(slots=True, eq=False)
class _Made:
    """A session that was made here."""

    session: SparkSession
    context: SparkContext
    settings: Mapping[str, str]
    job: str  # which it was made for
    users: int = 1


_lock: Final = threading.Lock()
# Guarded by _lock. Invariant: its users > 0.
_made: _Made | None = None
# Names of the settings that this process's JVM was started with. Guarded by _lock.
_started_with: frozenset[str] = frozenset()
# The folders of archives that were sent, by the application they were sent to: it takes one, once. Guarded by _lock.
_sent: dict[str, tempfile.TemporaryDirectory[str]] = {}


def use_session(job: LoadJob) -> tuple[SparkSession, Release]:
    """Return the session a job runs on, and what gives it back, to be called once. Raises EngineError."""
    global _made  # noqa: PLW0603  as Spark's own context, it is the process's
    if importlib.util.find_spec("pyspark") is None:
        raise EngineError(
            "the engine `spark` needs PySpark: install the extra `spark` (pip install 'millstream[spark]')"
        )
    with _lock:
        if _made is not None and is_gone(_made.context):
            _stop(_made)
            _made = None
        if _made is None:
            there_is = _session_there_is()
            if there_is is not None:
                return there_is, lambda: None
            _made = _make(job)
        else:
            _check_settings(_made, job)
            _made.users += 1
        held = _made
    return held.session, lambda: _release(held)


def context_of(session: SparkSession) -> SparkContext:
    """Return a session's context. Raises EngineError where it has none in this process."""
    try:
        return session.sparkContext
    except Exception as error:
        raise EngineError(
            "this Spark session has no context of its own (Spark Connect): start the job with spark-submit, or set "
            "spark.master"
        ) from error


def is_gone(context: SparkContext) -> bool:
    """Whether the context has ended, or the JVM it was in."""
    try:
        return bool(context._jsc.sc().isStopped())
    except Exception:  # noqa: BLE001  whoever can't be asked any more is gone
        return True


def ship_package(context: SparkContext) -> None:
    """Send this package to executors on other machines, or in processes of their own; once for an application."""
    master = context.master or ""
    wanted = context.getConf().get(SHIP, "true")
    is_local = master == "local" or master.startswith("local[")
    if wanted == "false" or is_local:
        return
    with _lock:
        if context.applicationId in _sent:
            return
        import millstream

        package = Path(next(iter(millstream.__path__)))
        folder = _sent[context.applicationId] = tempfile.TemporaryDirectory(prefix="millstream-spark-")
        path = Path(folder.name) / f"{ARCHIVE}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for file in sorted(package.rglob("*")):
                if file.suffix in _SHIPPED_SUFFIXES or file.name == "py.typed":
                    archive.write(file, Path("millstream") / file.relative_to(package))
        context.addArchive(f"{path}#{ARCHIVE}")


def sentence_of(error: Exception) -> str:
    """What Spark says, without the stack of two languages below it."""
    lines = [line.strip(" \t:") for line in str(error).splitlines() if line.strip(" \t:")]
    told = [line for line in lines if not line.startswith(("at ", "An error occurred"))]
    return (told or lines or [type(error).__name__])[0][:500]


def _session_there_is() -> SparkSession | None:
    """Return the session that somebody else made in this process."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is None and SparkContext._active_spark_context is not None:
        # Active is what a thread has used; a run may have a thread of its own.
        active = SparkSession.builder.getOrCreate()
    return active


def _settings(job: LoadJob) -> dict[str, str]:
    """Return all that a job says of its session, secrets in the clear, and what workers need where it says nothing."""
    settings = {f"spark.executorEnv.{name}": value for name, value in WORKER_ENVIRONMENT.items()}
    for name, value in job.spark.config.items():
        settings[name] = value.reveal() if isinstance(value, Secret) else value
    if job.spark.master is not None:
        settings["spark.master"] = job.spark.master
    return settings


def _check_settings(made: _Made, job: LoadJob) -> None:
    wanted = _settings(job)
    names = sorted(name for name in wanted.keys() | made.settings.keys() if wanted.get(name) != made.settings.get(name))
    if names:
        raise EngineError(
            f"the job {made.job} is at work on a Spark session that says otherwise of {', '.join(names)}, and a "
            "process has one session at a time: give both jobs the same [spark], or a process each"
        )


def _make(job: LoadJob) -> _Made:
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

    settings = _settings(job)
    secrets = [name for name, value in job.spark.config.items() if isinstance(value, Secret)]
    name = f"millstream load {job.name}"
    try:
        shown = SparkConf().setAppName(name)
        shown.setAll([(key, value) for key, value in settings.items() if key not in secrets])
        _start_jvm(shown, settings)
        builder = SparkSession.builder.appName(name)
        for key, value in settings.items():
            builder = builder.config(key, value)
        if secrets:
            _refuse_what_is_shown(secrets)
            pattern = settings.get(REDACTION) or SparkConf().get(REDACTION, _REDACTION_UNSET)
            assert pattern is not None, "there is a default"
            builder = builder.config(REDACTION, redaction_of(pattern, secrets))
        session = builder.getOrCreate()
    except EngineError:
        raise
    except Exception as error:
        raise EngineError(f"no Spark session could be had: {sentence_of(error)}; see [spark] in the job") from error
    try:
        return _Made(session, context_of(session), settings, job.name)
    except EngineError:
        session.stop()
        raise


def _start_jvm(shown: SparkConf, settings: Mapping[str, str]) -> None:
    """Start the JVM with settings that may be shown, or have the one there is forget what it was started with.

    It lives as long as the process, and what it was started with is a default of every session in it. Under _lock.
    """
    global _started_with  # noqa: PLW0603  as the JVM, it is the process's
    from pyspark import SparkContext

    if SparkContext._jvm is None:
        SparkContext._ensure_initialized(conf=shown)
        _started_with = frozenset(name for name in settings if shown.contains(name))
        return
    for name in _started_with - settings.keys():
        SparkContext._jvm.java.lang.System.clearProperty(name)


def _refuse_what_is_shown(secrets: Iterable[str]) -> None:
    """Raise EngineError for a secret that Spark would put on the command lines of its processes."""
    from pyspark import SparkContext

    assert SparkContext._jvm is not None, "the JVM was started"
    conf = SparkContext._jvm.org.apache.spark.SparkConf
    for name in secrets:
        if name.endswith("JavaOptions") or conf.isExecutorStartupConf(name):
            raise EngineError(
                f"spark.config.{name} is a secret, and Spark shows its value in the process list of every executor: "
                "have it read from a file that is readable there"
            )


def redaction_of(pattern: str, secrets: Iterable[str]) -> str:
    """Return Java's pattern of names that are shown without values: those of `pattern`, and these."""
    names: list[str] = []
    for name in secrets:
        names.append(name)
        names += [put + name.removeprefix(cut) for cut, put in _PASSED_ON.items() if name.startswith(cut)]
    return f"(?:{pattern})|^(?:{'|'.join(re.escape(name) for name in names)})$"


def _release(made: _Made) -> None:
    global _made  # noqa: PLW0603  see use_session
    with _lock:
        made.users -= 1
        if made.users == 0 and made is _made:
            _stop(made)
            _made = None


def _stop(made: _Made) -> None:
    """Stop a session, which may be gone already. Under _lock."""
    sent = None
    with suppress(Exception):
        sent = _sent.pop(made.context.applicationId, None)
    with suppress(Exception):
        made.session.stop()
    if sent is not None:
        sent.cleanup()
