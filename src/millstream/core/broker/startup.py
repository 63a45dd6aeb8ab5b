"""How a broker comes to its storage: sockets bound, directories locked, metadata loaded or adopted, logs opened.

Which metadata holds, in this order: that of the store; that of a Kafka node whose directory this is (its
`__cluster_metadata-0`, KRaft); and where there are partitions but neither, what their folders say: topics with their
ids and partition counts, and retention and cleaning off until an operator sets them, since the configs they had are
unknown.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from millstream.core.cluster import (
    BrokerImage,
    ClusterImage,
    ClusterMetadata,
    CreateTopic,
    EmbeddedStore,
    Endpoint,
    PartitionState,
    RegisterBroker,
    SetCluster,
    TopicImage,
)
from millstream.core.cluster.adoption import FOLDER_NAME, AdoptedMetadata, AdoptionError, read_kafka_metadata
from millstream.core.cluster.embedded_store import FILE_NAME
from millstream.core.cluster.operations import Operation
from millstream.core.config import ConfigError, TopicConfigDefaults
from millstream.core.log import (
    LogConfig,
    LogDirectory,
    LogDirectoryError,
    LogManager,
    Owner,
    TopicPartition,
    Unowned,
)
from millstream.core.log.directory import read_meta_properties
from millstream.core.wire import uuid_text

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.config import Listener
    from millstream.core.log import FileSystem

logger = logging.getLogger(__name__)

# What a topic found without its metadata is given: nothing is deleted.
UNKNOWN_TOPIC_CONFIGS: Final = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}

_BIND_HINTS: Final[dict[int | None, str]] = {
    errno.EADDRINUSE: "stop the process that listens there, or choose another port",
    errno.EADDRNOTAVAIL: "choose an address of this host, and put the one that clients use into advertised.listeners",
    errno.EACCES: "ports below 1024 are for root alone; choose a higher one",
}


class Storage(NamedTuple):
    """What a broker stands on."""

    metadata: ClusterMetadata
    logs: LogManager


def bind(listener: Listener) -> socket.socket:
    """Bind a listener's socket, without listening yet: port 0 is now a port, and a port in use is known."""
    host = listener.host
    try:
        if host:
            family, *_, address = socket.getaddrinfo(host, listener.port, type=socket.SOCK_STREAM)[0]
        else:
            family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
            address = ("", listener.port)
    except OSError as error:
        sentence = f"{listener} cannot be bound: {error.strerror}; name an address of this host"
        raise OSError(error.errno, sentence) from error
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and not host:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
    except OSError as error:
        sock.close()
        hint = _BIND_HINTS.get(error.errno)
        reason = f"{error.strerror}; {hint}" if hint else error.strerror
        raise OSError(error.errno, f"{listener} cannot be bound: {reason}") from error
    return sock


async def open_storage(broker: Broker, files: FileSystem | None) -> Storage:
    """Lock the directories, load the metadata, open the logs.

    Raises ConfigError, LogLockedError, InconsistentDirectoryError, AdoptionError, LogDirectoryError or OSError.
    """
    config = broker.config
    store_directory = Path(config.string("metadata.log.dir")) if config["metadata.log.dir"] else config.log_dirs[0]
    store_path = store_directory / FILE_NAME
    directories = [
        LogDirectory(path, files, loop=broker.loop, on_offline=lambda directory: _handle_offline(broker, directory))
        for path in config.log_dirs
    ]
    cluster_id = await broker.loop.run_in_executor(broker.executor, _known_cluster_id, config.log_dirs, files)
    if cluster_id is None and store_path.exists():
        cluster_id = await _stored_cluster_id(store_path)
    if cluster_id is None:
        cluster_id = uuid_text(os.urandom(16))
    opened: list[LogDirectory] = []
    metadata: ClusterMetadata | None = None
    logs: LogManager | None = None
    try:
        await broker.loop.run_in_executor(
            broker.executor, _open_directories, directories, cluster_id, config.node_id, opened
        )
        store_directory.mkdir(parents=True, exist_ok=True)
        metadata = ClusterMetadata(EmbeddedStore(store_path), reopen=lambda: EmbeddedStore(store_path))
        image = await metadata.start()
        _check_cluster(store_path, image.cluster_id, cluster_id)
        adopted = await _read_kafka_metadata(broker, store_directory) if image.version == 0 else None
        # Nothing is written down before the partitions of an unknown owner were looked at: a crash in between would
        # leave a store that knows none of them, and the next start would set them aside.
        is_unknown = image.version == 0 and adopted is None
        if not is_unknown:
            await _register(broker, metadata, cluster_id, adopted.operations if adopted is not None else _nothing)
        logs = LogManager(
            directories,
            loop=broker.loop,
            recovery_threads_per_directory=config.with_dynamic(metadata.image.broker_configs).integer(
                "num.recovery.threads.per.data.dir"
            ),
            producer_expiration_ms=config.integer("producer.id.expiration.ms"),
            now_ms=broker.clock.now_ms,
        )
        await _load_logs(broker, metadata, logs, adopt=is_unknown)
        if is_unknown:
            await _register(broker, metadata, cluster_id, _found_topics(broker, logs))
    except BaseException:
        if metadata is not None:
            await metadata.close()
        if logs is not None:
            await broker.loop.run_in_executor(broker.executor, logs.release)
        for directory in opened:
            await broker.loop.run_in_executor(broker.executor, directory.close)
        raise
    return Storage(metadata, logs)


def _check_cluster(path: Path, stored: str, known: str) -> None:
    if stored not in {"", known}:
        raise ConfigError(f"{path} is of cluster {stored}, but meta.properties says {known}: two clusters were mixed")


def _handle_offline(broker: Broker, directory: LogDirectory) -> None:
    # One that fails while the broker starts has no partitions yet.
    if hasattr(broker, "control"):
        broker.control.handle_directory_offline(directory)


def _known_cluster_id(paths: Sequence[Path], files: FileSystem | None) -> str | None:
    for path in paths:
        try:
            cluster_id = read_meta_properties(str(path), files).get("cluster.id")
        except OSError as error:
            logger.warning("%s: meta.properties cannot be read: %s", path, error)
            continue
        if cluster_id:
            return cluster_id
    return None


async def _stored_cluster_id(path: Path) -> str | None:
    store = EmbeddedStore(path)
    try:
        image, _ = await store.load()
    finally:
        await store.close()
    return image.cluster_id or None


def _open_directories(
    directories: Sequence[LogDirectory], cluster_id: str, node_id: int, opened: list[LogDirectory]
) -> None:
    """Lock them all; one whose disk fails stays offline as long as another works."""
    failure: LogDirectoryError | None = None
    for directory in directories:
        try:
            directory.open(cluster_id, node_id)
        except LogDirectoryError as error:
            failure = error
        else:
            opened.append(directory)
    if not opened and failure is not None:
        raise failure


async def _read_kafka_metadata(broker: Broker, store_directory: Path) -> AdoptedMetadata | None:
    """What the metadata of a Kafka node says that was the owner of these directories."""
    config = broker.config
    for path in dict.fromkeys((store_directory, *config.log_dirs)):
        try:
            adopted = await broker.loop.run_in_executor(broker.executor, read_kafka_metadata, path, config.node_id)
        except AdoptionError as error:
            raise ConfigError(f"{path / FOLDER_NAME} cannot be adopted: {error}") from error
        if adopted is not None:
            logger.info("adopting the metadata of Apache Kafka: %d topics", len(adopted.topics))
            for note in adopted.notes:
                logger.warning("adoption: %s", note)
            return adopted
    return None


def _nothing(_image: ClusterImage) -> Sequence[Operation]:
    return ()


async def _register(
    broker: Broker,
    metadata: ClusterMetadata,
    cluster_id: str,
    adopted: Callable[[ClusterImage], Sequence[Operation]],
) -> None:
    """Write down the cluster, this broker's endpoints and what is adopted, in one commit."""
    config = broker.config
    endpoints = tuple(
        Endpoint(listener.name, listener.security_protocol, *broker.addresses[listener.name])
        for listener in config.advertised_listeners
    )
    here = BrokerImage(config.node_id, endpoints, config.rack)

    def plan(image: ClusterImage) -> Sequence[Operation]:
        operations: list[Operation] = []
        if image.cluster_id != cluster_id or image.controller_id != config.node_id:
            operations.append(SetCluster(cluster_id, config.node_id))
        if image.brokers.get(config.node_id) != here:
            operations.append(RegisterBroker(here))
        return [*operations, *adopted(image)]

    await metadata.commit(plan)


async def _load_logs(broker: Broker, metadata: ClusterMetadata, logs: LogManager, *, adopt: bool) -> None:
    """Open every partition's log; with `adopt` topics that nobody knows are taken over from their folders."""
    image = metadata.image
    defaults = TopicConfigDefaults(broker.config, image.broker_configs)
    configs: dict[str, LogConfig] = {}

    def owner_of(tp: TopicPartition, topic_id: bytes | None) -> Owner | Unowned:
        if topic_id is not None and topic_id in image.deleted_topics and image.topic_by_id(topic_id) is None:
            return Unowned.DELETED
        topic = image.topics.get(tp.topic)
        if topic is None or tp.partition >= len(topic.partitions):
            if adopt and topic_id is not None:
                return Owner(topic_id, _log_config(defaults, UNKNOWN_TOPIC_CONFIGS))
            return Unowned.STRAY
        if topic_id not in (None, topic.topic_id):
            return Unowned.STRAY
        config = configs.get(tp.topic)
        if config is None:
            config = configs[tp.topic] = _log_config(defaults, topic.configs)
        return Owner(topic.topic_id, config)

    await broker.loop.run_in_executor(broker.executor, logs.load, owner_of)


def _log_config(defaults: TopicConfigDefaults, overrides: Mapping[str, str]) -> LogConfig:
    effective = defaults.effective(overrides)
    return LogConfig.from_topic({name: entry.value for name, entry in effective.items()})


def _found_topics(broker: Broker, logs: LogManager) -> Callable[[ClusterImage], Sequence[Operation]]:
    """What creates the topics whose partitions were found without any metadata."""
    if not logs.logs:
        return _nothing
    for directory in logs.directories:
        if directory.offline_reason is not None:
            raise ConfigError(
                f"{directory.path} is offline ({directory.offline_reason}) and there is no metadata: topics would be "
                "taken over without their partitions there; bring it back, or take it out of log.dirs",
                name="log.dirs",
            )
    node_id = broker.config.node_id
    indexes: dict[str, dict[bytes, list[int]]] = {}
    for tp, log in logs.logs.items():
        assert log.topic_id is not None, f"{tp} was loaded without a topic id"
        indexes.setdefault(tp.topic, {}).setdefault(log.topic_id, []).append(tp.partition)
    operations: list[Operation] = []
    for name, by_id in indexes.items():
        # Two topics of one name, one after the other: that with more of its partitions here is the one that lives.
        topic_id = max(by_id, key=lambda topic_id: len(by_id[topic_id]))
        if len(by_id) > 1:
            logger.error("partitions of %d topics named %s were found; the others are set aside", len(by_id), name)
        epochs = {index: logs.logs[TopicPartition(name, index)].leader_epochs.latest_epoch for index in by_id[topic_id]}
        states = tuple(
            PartitionState(node_id, max(epochs.get(index, -1), -1) + 1, (node_id,), (node_id,), 0)
            for index in range(max(by_id[topic_id]) + 1)
        )
        operations.append(CreateTopic(TopicImage(name, topic_id, states, dict(UNKNOWN_TOPIC_CONFIGS))))
    logger.warning(
        "%d topics were found without metadata and taken over from their folders; retention and cleaning are off for "
        "them until you set retention.ms, retention.bytes and cleanup.policy",
        len(operations),
    )
    return lambda _image: operations
