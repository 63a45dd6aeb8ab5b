"""What a run may meet that is none of the loader's own mistakes, and how it is said in a sentence.

Packages of extras are imported where they are needed, so that one is lacking may be met anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from millstream.core.wire import ErrorCode, KafkaError, WireError
from millstream.hadoop_loader.commit import ClaimedError, CommitError
from millstream.hadoop_loader.driver.report import Outcome
from millstream.hadoop_loader.driver.surroundings import StoppedError
from millstream.hadoop_loader.engines import EngineError
from millstream.hadoop_loader.filesystem import FileSystemError
from millstream.hadoop_loader.job import JobError

MET: Final = (KafkaError, WireError, FileSystemError, CommitError, EngineError, JobError, ImportError, OSError)
"""The errors that end a run with a sentence."""

_NOT_REACHED: Final = (ErrorCode.NETWORK_EXCEPTION, ErrorCode.REQUEST_TIMED_OUT, ErrorCode.BROKER_NOT_AVAILABLE)

# The extra that brings a package, by the name it is imported by; `hdfs` brings the others.
_EXTRAS: Final = {"pyiceberg": "iceberg", "pyspark": "spark", "gssapi": "kerberos"}


class Run(Protocol):
    """What whoever made a run is told of it, as far as its end goes."""

    outcome: Outcome
    # Of the last entry that it committed.
    number: int | None
    errors: list[str]

    @property
    def destination(self) -> str:
        """The address of the table root."""
        ...


@contextmanager
def outcome_in(run: Run, *wrong: type[Exception]) -> Iterator[None]:
    """Make an outcome and a sentence of what ends the block: a stop, another's claim, what MET names, or `wrong`.

    `wrong` are errors that say what was asked for in vain. What was committed by then, be it applied or not, leaves the
    run partly done, never undone.
    """
    said: tuple[type[Exception], ...] = (*MET, *wrong)
    try:
        yield
    except StoppedError:
        run.outcome = Outcome.STOPPED if run.number is None else Outcome.PARTIAL
    except ClaimedError as error:
        run.outcome = Outcome.CLAIMED if run.number is None else Outcome.PARTIAL
        run.errors.append(str(error))
    except said as error:
        if isinstance(error, CommitError) and error.published is not None:
            # It counts, and the next run applies it.
            run.number = error.published.number
        run.outcome = Outcome.FAILED if run.number is None else Outcome.PARTIAL
        run.errors.append(sentence_of(error, run.destination))


def sentence_of(error: BaseException, destination: str) -> str:
    """What happened and what to do about it; `destination` is the address of the table root."""
    if isinstance(error, KafkaError) and error.code in _NOT_REACHED:
        return f"{error.message}; see that the brokers run, and that source.bootstrap_servers is where they are"
    if isinstance(error, WireError):
        return f"a broker answered what this client cannot read: {error}; see that it speaks Kafka's protocol"
    if isinstance(error, ImportError):
        package = (error.name or "").partition(".")[0]
        extra = _EXTRAS.get(package, "hdfs")
        return f"a package is not there ({error}): pip install 'millstream[{extra}]'"
    if isinstance(error, JobError):
        return "; ".join(str(problem) for problem in error.problems)
    if isinstance(error, OSError):
        reason = (error.strerror or str(error)).lower()
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{destination}: {where}{reason}; see that the path can be made and written to"
    return str(error) or type(error).__name__
