"""The broker configs of moving replicas between log directories: Kafka's names, types and defaults."""

from __future__ import annotations

from typing import Final

from millstream.core.config.definition import LONG_MAX, ConfigKey, ConfigType, Importance, UpdateMode, at_least

REPLICA_CONFIGS: Final = [
    ConfigKey(
        name="replica.alter.log.dirs.io.max.bytes.per.second",
        type=ConfigType.LONG,
        default=LONG_MAX,
        doc="How many bytes a second are copied at most while replicas move between log directories, all together.",
        validator=at_least(0),
        dynamic=UpdateMode.CLUSTER_WIDE,
        importance=Importance.MEDIUM,
    ),
    ConfigKey(
        name="num.replica.alter.log.dirs.threads",
        type=ConfigType.INT,
        default=None,
        doc="How many replicas move between log directories at the same time; one for each directory if it is not set.",
        validator=at_least(1),
        importance=Importance.MEDIUM,
    ),
]
