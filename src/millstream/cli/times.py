"""Times as people write and read them."""

from __future__ import annotations

import datetime
from typing import Final

import typer

from millstream.core.client import EARLIEST, LATEST, MAX_TIMESTAMP

# The numbers are what Kafka's own GetOffsetShell takes.
_NAMED: Final = {
    "earliest": EARLIEST,
    "latest": LATEST,
    "max-timestamp": MAX_TIMESTAMP,
    "-1": LATEST,
    "-2": EARLIEST,
    "-3": MAX_TIMESTAMP,
}


def parse_time(text: str) -> int:
    """Read a time as ListOffsets takes it: a name, milliseconds since 1970, or a date. Raises BadParameter."""
    lowered = text.strip().lower()
    if lowered in _NAMED:
        return _NAMED[lowered]
    if lowered.isascii() and lowered.isdigit():
        return int(lowered)
    try:
        when = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time: write earliest, latest, max-timestamp, 2026-03-01T12:00:00Z or milliseconds",
            param_hint="--time",
        ) from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    return int(when.timestamp() * 1000)


def time_text(timestamp_ms: int) -> str | None:
    """Return a record's timestamp as a date in UTC, or None where it has none or lies outside the calendar."""
    if timestamp_ms < 0:
        return None
    try:
        when = datetime.datetime.fromtimestamp(timestamp_ms / 1000, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return str(timestamp_ms)
    return when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{timestamp_ms % 1000:03d}Z"
