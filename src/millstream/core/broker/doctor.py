"""What an operator should know of a machine and of data directories before a broker runs there; `millstream doctor`.

`examine` looks and changes nothing; a running broker does not mind it. `open_transactions` and `abort_transactions`
load the logs as a broker would, so both take the lock of every directory and want the broker stopped. All of it blocks.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import pkgutil
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, Literal

import millstream.core._kernels
from millstream.core.broker.disk_space import AUTOMATIC, disk_space, watermark
from millstream.core.cluster.adoption import FOLDER_NAME, AdoptionError, read_kafka_metadata
from millstream.core.cluster.embedded_store import FILE_NAME
from millstream.core.log import LogConfig, LogDirectory, LogManager, TopicPartition
from millstream.core.log.cleaner import UNCLEANABLE, decode_uncleanable
from millstream.core.log.directory import read_meta_properties
from millstream.core.log.topic_partition import STRAY_SUFFIX

if TYPE_CHECKING:
    from millstream.core.config import BrokerConfig

Level = Literal["ok", "note", "warning", "problem"]

# What stands beside the kernels and is no kernel: see `_kernels`.
_NO_KERNELS: Final = frozenset({"interpreted", "opcodes", "shim"})
DESCRIPTORS_COUNT_MIN: Final = 65_536  # a few thousand connections and every open segment
MAPS_COUNT_MIN: Final = 65_530  # Linux's own default
_MAX_MAP_COUNT: Final = Path("/proc/sys/vm/max_map_count")
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. A `problem` keeps a broker from running well; a `warning` may."""

    level: Level
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """A transaction that nobody has ended: records behind `first_offset` are hidden from read_committed consumers."""

    topic: str
    partition: int
    producer_id: int
    producer_epoch: int
    coordinator_epoch: int
    first_offset: int
    last_timestamp_ms: int

    @property
    def topic_partition(self) -> TopicPartition:
        """The partition it is open in."""
        return TopicPartition(self.topic, self.partition)


def examine(
    data_dirs: Sequence[Path],
    config: BrokerConfig | None,
    kernel_packages: Sequence[ModuleType] = (millstream.core._kernels,),
) -> Iterator[Finding]:
    """Look at the machine, the configuration and the directories; each finding comes as it is made.

    `kernel_packages` hold the compiled loops whose build is looked at.
    """
    yield Finding("ok", "Python", f"{sys.version.split()[0]}, cyclic collector at {gc.get_threshold()}")
    yield _kernels(kernel_packages)
    yield _uvloop()
    yield _descriptors()
    yield from _maps()
    if config is not None:
        for warning in config.warnings:
            yield Finding("warning", "configuration", warning)
    minimum = AUTOMATIC if config is None else config.integer("millstream.disk.free.min.bytes")
    node_id = None if config is None else config.node_id
    for path in data_dirs:
        yield from _directory(path, minimum, node_id)


def open_transactions(data_dirs: Sequence[Path]) -> list[OpenTransaction]:
    """Load every log and return the transactions that are open in them, the oldest offsets of a partition first.

    Raises LogLockedError while a broker runs on one of the directories.
    """
    if not any("cluster.id" in read_meta_properties(str(path)) for path in data_dirs):
        return []
    with _loaded(data_dirs) as logs:
        return _transactions(logs)


def abort_transactions(data_dirs: Sequence[Path], transactions: Iterable[OpenTransaction]) -> list[OpenTransaction]:
    """Append an abort marker for each of these that is still open, sync the logs, and return those aborted."""
    wanted = {(each.topic_partition, each.producer_id, each.producer_epoch) for each in transactions}
    aborted = []
    with _loaded(data_dirs) as logs:
        for each in _transactions(logs):
            if (each.topic_partition, each.producer_id, each.producer_epoch) in wanted:
                log = logs.logs[each.topic_partition]
                log.abort_open_transaction(
                    each.producer_id,
                    each.producer_epoch,
                    max(each.coordinator_epoch, 0),
                    leader_epoch=max(log.leader_epochs.latest_epoch, 0),
                    now_ms=time.time_ns() // 1_000_000,
                )
                log.write()
                log.flush()
                aborted.append(each)
    return aborted


def _transactions(logs: LogManager) -> list[OpenTransaction]:
    found = [
        OpenTransaction(
            topic=tp.topic,
            partition=tp.partition,
            producer_id=entry.producer_id,
            producer_epoch=entry.epoch,
            coordinator_epoch=entry.coordinator_epoch,
            first_offset=entry.transaction_first_offset,
            last_timestamp_ms=entry.last_timestamp,
        )
        for tp, log in logs.logs.items()
        for entry in log.open_transactions()
    ]
    return sorted(found, key=lambda each: (each.topic, each.partition, each.first_offset))


@contextmanager
def _loaded(data_dirs: Sequence[Path]) -> Iterator[LogManager]:
    """The logs of directories that exist and belong to a broker, locked, and closed cleanly at the end."""
    directories: list[LogDirectory] = []
    try:
        for path in data_dirs:
            properties = read_meta_properties(str(path))
            if "cluster.id" in properties:
                directory = LogDirectory(path)
                directory.open(properties["cluster.id"], int(properties.get("node.id", "0")))
                directories.append(directory)
        logs = LogManager(directories)
        logs.load(LogConfig())
    except BaseException:
        for directory in directories:
            directory.close()
        raise
    try:
        yield logs
    finally:
        logs.close()


def _kernels(packages: Sequence[ModuleType]) -> Finding:
    names = sorted(
        f"{package.__name__}.{module.name}"
        for package in packages
        for module in pkgutil.iter_modules(package.__path__)
        if module.name not in _NO_KERNELS
    )
    interpreted = [name.rpartition(".")[2] for name in names if not _is_compiled(name)]
    if not interpreted:
        return Finding("ok", "kernels", f"all {len(names)} are compiled")
    return Finding(
        "problem",
        "kernels",
        f"{', '.join(interpreted)} run interpreted, many times slower: install a C compiler, then Millstream again "
        "with MILLSTREAM_REQUIRE_KERNELS=1, which makes a failed build an error",
    )


def _is_compiled(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    return spec is not None and (spec.origin or "").endswith(tuple(EXTENSION_SUFFIXES))


def _uvloop() -> Finding:
    if importlib.util.find_spec("uvloop") is None:
        return Finding("problem", "uvloop", "is not installed, and the broker runs on it: pip install uvloop")
    return Finding("ok", "uvloop", "is installed")


def _descriptors() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{soft} open files may be had by this process (the hard limit is {hard})"
    if soft < DESCRIPTORS_COUNT_MIN:
        return Finding(
            "warning",
            "open files",
            f"{text}: each connection takes one, each open segment up to three; raise it to {DESCRIPTORS_COUNT_MIN} or "
            "more with `ulimit -n`, or LimitNOFILE in the service",
        )
    return Finding("ok", "open files", text)


def _maps() -> Iterator[Finding]:
    try:
        count = int(_MAX_MAP_COUNT.read_text())
    except (OSError, ValueError):  # another system than Linux, or hidden in a container
        return
    if count < MAPS_COUNT_MIN:
        yield Finding(
            "warning",
            "memory maps",
            f"vm.max_map_count is {count}: indexes of open segments are mapped; sysctl -w vm.max_map_count=262144",
        )
    else:
        yield Finding("ok", "memory maps", f"vm.max_map_count is {count}")


def _directory(path: Path, free_bytes_min: int, node_id: int | None) -> Iterator[Finding]:
    subject = str(path)
    if not path.is_dir():
        yield Finding("note", subject, "does not exist; a broker would make it")
        return
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("problem", subject, "cannot be read and written by this user; change its owner or its mode")
        return
    yield from _space(path, free_bytes_min)
    properties = read_meta_properties(str(path))
    if not properties:
        yield Finding("note", subject, "holds no meta.properties: no broker has used it")
        return
    if properties.get("version") == "0":
        yield Finding("problem", subject, "is of Apache Kafka with ZooKeeper; migrate it to KRaft with Kafka 3.9 first")
        return
    owner = f"cluster {properties.get('cluster.id', '?')}, node {properties.get('node.id', '?')}"
    if node_id is not None and properties.get("node.id", str(node_id)) != str(node_id):
        yield Finding("problem", subject, f"belongs to {owner}, but node.id is {node_id}; the broker would not start")
    else:
        yield Finding("ok", subject, f"belongs to {owner}")
    yield from _metadata(path, properties)
    yield from _strays(path)
    yield from _uncleanable(path)


def _space(path: Path, free_bytes_min: int) -> Iterator[Finding]:
    space = disk_space(str(path))
    if space is None:
        yield Finding("problem", str(path), "its file system does not answer")
        return
    minimum = watermark(free_bytes_min, space.total_bytes)
    text = f"{space.usable_bytes // _MIB} MB of {space.total_bytes // _MIB} MB are free"
    if space.usable_bytes < minimum:
        yield Finding("problem", str(path), f"{text}, less than the {minimum // _MIB} MB below which it is read-only")
    elif space.usable_bytes < 2 * minimum:
        yield Finding("warning", str(path), f"{text}; below {minimum // _MIB} MB it is read-only")
    else:
        yield Finding("ok", str(path), text)


def _metadata(path: Path, properties: dict[str, str]) -> Iterator[Finding]:
    if (path / FILE_NAME).exists():
        return
    if not (path / FOLDER_NAME).is_dir():
        if any(TopicPartition.from_folder(entry.name) for entry in path.iterdir()):
            yield Finding(
                "note",
                str(path),
                "holds partitions and no metadata: it is one of several, or retention and cleaning stay off here until "
                "an operator sets them",
            )
        return
    node_id = int(properties.get("node.id", "0"))
    try:
        adopted = read_kafka_metadata(path, node_id)
    except AdoptionError as error:
        yield Finding("problem", str(path), f"Apache Kafka's metadata cannot be read: {error}")
        return
    if adopted is not None:
        yield Finding("note", str(path), "was written by Apache Kafka; the first start adopts its topics and configs")
        for note in adopted.notes:
            yield Finding("warning", str(path), note)


def _strays(path: Path) -> Iterator[Finding]:
    strays = [entry for entry in path.iterdir() if entry.name.endswith(STRAY_SUFFIX)]
    if strays:
        size = sum(map(_size, strays))
        yield Finding(
            "warning",
            str(path),
            f"{len(strays)} folders of no known partition, {size // _MIB} MB, are kept as -stray and never deleted: "
            f"{', '.join(sorted(entry.name for entry in strays)[:5])}",
        )


def _uncleanable(path: Path) -> Iterator[Finding]:
    file = path / UNCLEANABLE
    if not file.exists():
        return
    try:
        found = decode_uncleanable(file.read_bytes())
    except (ValueError, KeyError, TypeError) as error:
        yield Finding("warning", str(file), f"cannot be read: {error!r}")
        return
    for each in found:
        if (path / str(each.topic_partition)).is_dir():
            yield Finding(
                "problem",
                str(path / str(each.topic_partition)),
                f"is not cleaned any more and grows: {each.reason}. What else is in it is served; mend or remove that "
                "segment with the broker stopped (another replica or a backup may have it whole), then start again",
            )


def _size(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in folder.iterdir() if entry.is_file())
