"""The broker configs of the log cleaner: Kafka's names, types and defaults, changeable while a broker runs (KIP-226).

Topics' own (min.cleanable.dirty.ratio and the like) have their defaults in `broker_configs`.
"""

from __future__ import annotations

from typing import Final

from millstream.core.config.definition import (
    ConfigKey,
    ConfigType,
    ConfigValue,
    Importance,
    UpdateMode,
    Validator,
    at_least,
)

DEDUPE_BUFFER_BYTES: Final = 128 << 20
IO_BUFFER_BYTES: Final = 512 << 10
UNTHROTTLED: Final = 1.7976931348623157e308  # Java's Double.MAX_VALUE


def _cleaner(
    name: str,
    kind: ConfigType,
    default: ConfigValue,
    doc: str,
    validator: Validator | None = None,
    dynamic: UpdateMode = UpdateMode.CLUSTER_WIDE,
) -> ConfigKey:
    return ConfigKey(
        name=f"log.cleaner.{name}",
        type=kind,
        default=default,
        doc=doc,
        validator=validator,
        dynamic=dynamic,
        importance=Importance.MEDIUM,
        synonyms=(),
    )


CLEANER_CONFIGS: Final = [
    _cleaner(
        "enable",
        ConfigType.BOOLEAN,
        True,
        "Whether compacted topics are cleaned. Without it they grow for ever, the offsets of groups among them.",
        dynamic=UpdateMode.READ_ONLY,
    ),
    _cleaner("threads", ConfigType.INT, 1, "How many threads clean logs.", at_least(0)),
    _cleaner(
        "dedupe.buffer.size",
        ConfigType.LONG,
        DEDUPE_BUFFER_BYTES,
        "The memory, of all cleaner threads together, that keys are noted in: 24 bytes a key. A log with more dirty "
        "keys than a thread's share can hold is cleaned in several passes.",
    ),
    _cleaner(
        "io.buffer.load.factor",
        ConfigType.DOUBLE,
        0.9,
        "How full that memory may become, 0 to 1. The fuller, the more keys in a pass, and the longer each search.",
    ),
    _cleaner(
        "io.buffer.size",
        ConfigType.INT,
        IO_BUFFER_BYTES,
        "The memory for reading and writing, of all cleaner threads together. One larger batch takes what it needs.",
        at_least(0),
    ),
    _cleaner(
        "io.max.bytes.per.second",
        ConfigType.DOUBLE,
        UNTHROTTLED,
        "How many bytes a second all cleaner threads together may read and write.",
    ),
    _cleaner(
        "backoff.ms",
        ConfigType.LONG,
        15_000,
        "How long a cleaner thread waits when no log is due, or one could not be cleaned.",
        at_least(0),
    ),
]
