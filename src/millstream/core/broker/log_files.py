"""Where the broker's own log lines go: standard error or rotated files, written by a thread, never by the event loop.

A logger puts the record into a bounded queue; a listener thread formats and writes it. When the disk is so slow that
the queue is full, lines are dropped and counted, and the next that fits says how many: a log must not stop a broker.

    2026-11-21T06:12:01.337Z INFO  millstream.core.broker.retention deleted 3 segments  topic=flights partition=2
    {"time": "2026-11-21T06:12:01.337Z", "level": "INFO", "logger": "...", "message": "...", "topic": "flights", ...}

Fields are given by `extra={"fields": {...}}`.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from millstream.core.config import BrokerConfig

LINES_COUNT_MAX: Final = 10_000  # lines waiting to be written
PAUSE_S: Final = 0.02  # for how long lines are collected that come one soon after the other
Format = Literal["text", "json"]


class _Formatter(logging.Formatter):
    """Time in UTC with milliseconds, level, logger, message, fields; a traceback follows or is a field."""

    def __init__(self, form: Format) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        moment = f"{seconds}.{int(record.msecs):03d}Z"
        fields: dict[str, Any] = getattr(record, "fields", {})
        if self._form == "json":
            line = {"time": moment, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
            if record.exc_text:
                line["exception"] = record.exc_text
            return json.dumps(line | fields, default=str)
        text = f"{moment} {record.levelname:<7} {record.name} {record.getMessage()}"
        if fields:
            text += "  " + " ".join(f"{name}={value}" for name, value in fields.items())
        return f"{text}\n{record.exc_text}" if record.exc_text else text


class _QueueHandler(logging.handlers.QueueHandler):
    """Puts records into the queue; counts those that do not fit."""

    def __init__(self, lines: queue.Queue[Any]) -> None:
        super().__init__(lines)
        self._lines = lines
        # Lines lost since the last one that fitted. Changed under the handler's lock.
        self._dropped_count = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        # The message is formatted here, because its arguments may change before the thread comes to it.
        record.message = record.getMessage()
        record.msg, record.args = record.message, None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        record.exc_info = None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        if self._dropped_count:
            record.msg = f"{record.msg} ({self._dropped_count} lines before this one were dropped: the log is too slow)"
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            self._dropped_count += 1
        else:
            self._dropped_count = 0


class _Listener(logging.handlers.QueueListener):
    """Writes what is in the queue; between two looks at an empty one it pauses.

    A thread that waits is woken by each line, and takes the interpreter from the loop that wrote it.
    """

    def __init__(self, lines: queue.Queue[Any], target: logging.Handler) -> None:
        super().__init__(lines, target)
        self._lines = lines

    def dequeue(self, block: bool) -> logging.LogRecord:
        if block and self._lines.empty():
            time.sleep(PAUSE_S)
        return super().dequeue(block)


class LogFiles:
    """The root logger's handler and its writing thread; `close` writes what waits and puts back what was before."""

    def __init__(
        self,
        path: Path | None,
        *,
        level: str = "info",
        form: Format = "text",
        size_bytes_max: int = 64 << 20,
        count_max: int = 10,
        lines_count_max: int = LINES_COUNT_MAX,
    ) -> None:
        """Write to `path`, rotated at `size_bytes_max` with `count_max` files kept, or to standard error if it is None.

        Raises OSError where the file cannot be opened: a broker that cannot log should not start.
        """
        target: logging.Handler
        if path is None:
            target = logging.StreamHandler(sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            target = logging.handlers.RotatingFileHandler(
                path, maxBytes=size_bytes_max, backupCount=count_max - 1, encoding="utf-8"
            )
        target.setFormatter(_Formatter(form))
        # Records on their way to the writing thread. Invariant: at most lines_count_max.
        self._lines: queue.Queue[Any] = queue.Queue(lines_count_max)
        self._target = target
        self._handler = _QueueHandler(self._lines)
        self._listener = _Listener(self._lines, target)
        root = logging.getLogger()
        self._level_before = root.level
        root.setLevel(level.upper())
        root.addHandler(self._handler)
        self._listener.start()

    @classmethod
    def from_config(cls, config: BrokerConfig) -> LogFiles:
        """Set the logging up that `millstream.log.*` asks for."""
        file = config.string("millstream.log.file")
        form: Format = "json" if config.string("millstream.log.format") == "json" else "text"
        return cls(
            Path(file) if file else None,
            level=config.string("millstream.log.level"),
            form=form,
            size_bytes_max=config.integer("millstream.log.file.max.bytes"),
            count_max=config.integer("millstream.log.file.count"),
        )

    def close(self) -> None:
        """Write every line that waits, then stop."""
        root = logging.getLogger()
        root.removeHandler(self._handler)
        root.setLevel(self._level_before)
        self._listener.stop()
        self._target.close()
