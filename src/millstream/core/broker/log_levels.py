"""The levels of the broker's loggers, as the BROKER_LOGGER resource shows and changes them (KIP-412).

Names are Python's (`millstream.core.broker...`, and `root`); levels are Kafka's (WARN, FATAL), since its tools send and
show those.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from millstream.core.wire import ErrorCode, KafkaError

ROOT: Final = "root"
_PREFIX: Final = "millstream"
_TO_PYTHON: Final[Mapping[str, int]] = {
    "TRACE": logging.DEBUG,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
}


def log_levels() -> dict[str, str]:
    """Return the effective level of the root logger and of each of ours, by name."""
    names = sorted(name for name in list(logging.root.manager.loggerDict) if _is_ours(name))
    return {ROOT: _level_name(logging.root)} | {name: _level_name(logging.getLogger(name)) for name in names}


def check_log_level(name: str, level: str | None) -> None:
    """Raise KafkaError where there is no such logger, or no such level; None stands for inheriting it."""
    if name not in log_levels():
        raise KafkaError(ErrorCode.INVALID_CONFIG, f"Logger {name} does not exist!")
    if level is None and name == ROOT:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Removing the log level of the {ROOT} logger is not allowed")
    if level is not None and level not in _TO_PYTHON:
        raise KafkaError(
            ErrorCode.INVALID_CONFIG,
            f"Cannot set the log level of {name} to {level} as it is not a supported log level. "
            f"Valid log levels are {', '.join(_TO_PYTHON)}",
        )


def set_log_level(name: str, level: str | None) -> None:
    """Set a level that `check_log_level` let pass, until the broker ends; None: as its parent logger's."""
    logger = logging.root if name == ROOT else logging.getLogger(name)
    logger.setLevel(logging.NOTSET if level is None else _TO_PYTHON[level])


def _is_ours(name: str) -> bool:
    return name == _PREFIX or name.startswith(_PREFIX + ".")


def _level_name(logger: logging.Logger) -> str:
    level = logger.getEffectiveLevel()
    return next((name for name, value in reversed(tuple(_TO_PYTHON.items())) if level >= value), "TRACE")
