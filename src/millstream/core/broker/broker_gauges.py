"""What `/metrics` reads when it is scraped: the state of partitions, logs, connections and the process.

Nothing is counted for these anywhere: each family walks what the broker holds anyway, so 20,000 idle partitions cost
nothing between two scrapes. Names are those of Kafka's usual exporter; what Kafka does not have is `millstream_*`.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from millstream.core.metrics import Registry
from millstream.core.metrics.process import peak_memory_bytes

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.broker.disk_space import DiskWatermark
    from millstream.core.broker.partition import Partition
    from millstream.core.log import Log

_Labelled = Iterator[tuple[tuple[str, ...], float]]


def register_gauges(broker: Broker, disks: DiskWatermark) -> None:
    """Add every gauge of the broker to its registry."""
    registry = broker.metrics.registry
    _register_partitions(broker, registry)
    _register_logs(broker, registry)
    _register_disks(broker, registry, disks)
    _register_cluster(broker, registry)
    _register_requests(broker, registry)
    _register_groups(broker, registry)
    _register_process(registry)


def _register_requests(broker: Broker, registry: Registry) -> None:
    connections = broker.connections
    registry.read_gauge(
        "kafka_server_socketservermetrics_connection_count", "Open connections.", lambda: len(connections)
    )
    registry.computed(
        "kafka_server_delayedoperationpurgatory_purgatorysize",
        "Requests that wait.",
        "gauge",
        ("delayedoperation",),
        lambda: ((("Fetch",), broker.purgatory.waiters_count),),
    )
    registry.read_gauge(
        "kafka_server_fetchsessioncache_numincrementalfetchsessions",
        "Incremental fetch sessions (KIP-227).",
        lambda: len(broker.fetch_sessions),
    )
    registry.computed(
        "millstream_memory_pool_used_bytes",
        "Bytes charged to a memory pool: of requests on their way in, of records on their way out.",
        "gauge",
        ("pool",),
        lambda: ((("requests",), connections.pool.used_bytes), (("records",), connections.read_memory.used_bytes)),
    )


def _register_groups(broker: Broker, registry: Registry) -> None:
    coordinators = broker.coordinators

    def groups() -> _Labelled:
        counts: dict[tuple[str, str], int] = {}
        for shard in coordinators.shards():
            for group in shard.groups.values():
                key = (group.group_type.lower(), group.state_name)
                counts[key] = counts.get(key, 0) + 1
        yield from counts.items()

    registry.computed(
        "kafka_server_group_coordinator_metrics_group_count",
        "Groups that this broker coordinates, by protocol and state.",
        "gauge",
        ("protocol", "state"),
        groups,
    )
    registry.read_gauge(
        "kafka_coordinator_group_groupmetadatamanager_numoffsets",
        "Committed offsets of the groups that this broker coordinates.",
        lambda: sum(shard.offsets.count for shard in coordinators.shards()),
    )
    registry.computed(
        "kafka_server_group_coordinator_metrics_num_partitions",
        "Partitions of __consumer_offsets whose groups this broker coordinates, by state.",
        "gauge",
        ("state",),
        lambda: (((state,), count) for state, count in coordinators.counts().items()),
    )


def _register_partitions(broker: Broker, registry: Registry) -> None:
    def count(condition: Callable[[Partition], bool]) -> Callable[[], float]:
        return lambda: sum(map(condition, broker.partitions))

    prefix = "kafka_server_replicamanager_"
    registry.read_gauge(prefix + "partitioncount", "Partitions on this broker.", lambda: len(broker.partitions))
    registry.read_gauge(
        prefix + "leadercount", "Partitions this broker leads.", count(lambda partition: partition.is_leader)
    )
    registry.read_gauge(
        prefix + "offlinereplicacount",
        "Partitions that are not served because their log directory failed.",
        count(lambda partition: not partition.is_leader),
    )
    registry.read_gauge(
        prefix + "underreplicatedpartitions",
        "Partitions with replicas that are not in sync.",
        count(lambda partition: len(partition.isr) < len(partition.replicas)),
    )
    registry.read_gauge(
        prefix + "underminisrpartitioncount",
        "Partitions with fewer in-sync replicas than min.insync.replicas.",
        count(lambda partition: len(partition.isr) < partition.min_insync_replicas),
    )


def _register_logs(broker: Broker, registry: Registry) -> None:
    def each(value: Callable[[Log], float]) -> Callable[[], _Labelled]:
        def read() -> _Labelled:
            for partition in broker.partitions:
                if partition.log is not None:
                    yield (partition.topic, str(partition.index)), value(partition.log)

        return read

    labels = ("topic", "partition")
    prefix = "kafka_log_log_"
    registry.computed(
        prefix + "size", "Bytes of the log's segments.", "gauge", labels, each(lambda log: log.size_bytes)
    )
    registry.computed(
        prefix + "logstartoffset", "The first offset.", "gauge", labels, each(lambda log: log.log_start_offset)
    )
    registry.computed(
        prefix + "logendoffset",
        "The offset behind the last record.",
        "gauge",
        labels,
        each(lambda log: log.log_end_offset),
    )
    registry.read_gauge(
        "millstream_corrupt_ranges",
        "Stretches of logs that are damaged and not served.",
        lambda: sum(len(partition.log.corrupt_ranges) for partition in broker.partitions if partition.log is not None),
    )


def _register_disks(broker: Broker, registry: Registry, disks: DiskWatermark) -> None:
    directories = broker.logs.directories
    registry.read_gauge(
        "kafka_log_logmanager_offlinelogdirectorycount",
        "Log directories that failed.",
        lambda: sum(directory.offline_reason is not None for directory in directories),
    )

    def each(value: Callable[[Any], float]) -> Callable[[], _Labelled]:
        return lambda: (((directory.path,), value(directory)) for directory in directories)

    registry.computed(
        "millstream_log_directory_read_only",
        "1 while the log directory takes no records because its disk is nearly full.",
        "gauge",
        ("directory",),
        each(lambda directory: int(directory.read_only_reason is not None)),
    )

    def spaces(index: int) -> Callable[[], _Labelled]:
        return lambda: (((path,), space[index]) for path, space in list(disks.spaces.items()))

    registry.computed("millstream_disk_total_bytes", "Size of the file system.", "gauge", ("directory",), spaces(0))
    registry.computed(
        "millstream_disk_usable_bytes", "Bytes free on the file system.", "gauge", ("directory",), spaces(1)
    )


def _register_cluster(broker: Broker, registry: Registry) -> None:
    prefix = "kafka_controller_kafkacontroller_"
    metadata = broker.metadata
    registry.read_gauge(
        prefix + "activecontrollercount",
        "1 where this node is the controller.",
        lambda: int(metadata.image.controller_id == broker.config.node_id),
    )
    registry.read_gauge(prefix + "globaltopiccount", "Topics.", lambda: len(metadata.image.topics))
    registry.read_gauge(
        prefix + "globalpartitioncount",
        "Partitions of all topics.",
        lambda: sum(len(topic.partitions) for topic in metadata.image.topics.values()),
    )
    registry.read_gauge(
        prefix + "offlinepartitionscount",
        "Partitions without a leader.",
        lambda: sum(state.leader < 0 for topic in metadata.image.topics.values() for state in topic.partitions),
    )
    registry.read_gauge(
        "millstream_metadata_version",
        "Version of the metadata this broker serves.",
        lambda: broker.partitions.applied_version,
    )


def _register_process(registry: Registry) -> None:
    registry.read_gauge(
        "process_resident_memory_peak_bytes",
        "Greatest resident memory of the process so far.",
        peak_memory_bytes,
    )
    registry.computed(
        "process_cpu_seconds_total", "Processor time used.", "counter", (), lambda: (((), time.process_time()),)
    )
    registry.computed(
        "millstream_gc_objects_collected_total",
        "Objects that the cyclic collector freed.",
        "counter",
        ("generation",),
        lambda: (((str(index),), stats["collected"]) for index, stats in enumerate(gc.get_stats())),
    )


class CollectorTimes:
    """How long the cyclic collector held the process up; registered with `gc` while the broker runs."""

    def __init__(self, registry: Registry, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._pauses = registry.summary(
            "millstream_gc_pause_ms", "Milliseconds in runs of the cyclic collector.", "generation"
        )
        self._started_ns = 0

    def start(self) -> None:
        """Begin to measure."""
        gc.callbacks.append(self._handle)

    def stop(self) -> None:
        """Stop measuring."""
        if self._handle in gc.callbacks:
            gc.callbacks.remove(self._handle)

    def _handle(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._started_ns = self._now_ns()
        else:
            self._pauses.labels(str(info["generation"])).observe((self._now_ns() - self._started_ns) // 1000)
