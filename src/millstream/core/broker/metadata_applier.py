"""Keeps this broker's partitions equal to the cluster's image: logs created, reconfigured and deleted as topics are.

Images come on the event loop (`ClusterMetadata.subscribe`). One task applies them in order, what piled up meanwhile in
one step: deletions first, so that a topic created again under its name finds it free; then new logs, on a worker
thread; then configs. `Partitions.handle_applied` then tells handlers that wait for that version.

A log that could not be created (its disk is full or has failed) leaves an offline partition; `retry` tries it again.
Owned by the event loop, but for `_create_logs` and `_delete_logs`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from millstream.core.cluster.slices import Slices
from millstream.core.config import EffectiveConfig, TopicConfigDefaults, effective_broker_config
from millstream.core.log import LogConfig, TopicPartition
from millstream.core.wire import KafkaError

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.cluster import ClusterImage, PartitionState, TopicImage
    from millstream.core.log import Log

logger = logging.getLogger(__name__)

LOGS_PER_STEP: Final = 64  # logs created or deleted in one job of the worker thread, between two passes of the loop


class _Wanted(NamedTuple):
    """A partition that this broker should hold."""

    tp: TopicPartition
    topic_id: bytes
    state: PartitionState
    config: LogConfig


class MetadataApplier:
    """Applies images to `broker.partitions`.

    States: STOPPED -> RUNNING (start: the image of that moment is applied) -> STOPPED (stop).
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        # The image that the partitions equal; None before the first.
        self._applied: ClusterImage | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # Configs by overrides, so that topics with equal ones share one object. All three follow the broker configs.
        self._log_configs: dict[tuple[tuple[str, str], ...], LogConfig] = {}
        self._take_broker_configs(broker.metadata.image)
        # Partitions whose log could not be created, for `retry`. Invariant: they are of topics in `_applied`.
        self._failed: dict[TopicPartition, bytes] = {}
        # Held while partitions change, so that a retry never brings back one that is being deleted.
        self._changing = asyncio.Lock()
        # Why the newest image could not be applied; None once it was.
        self._failure: str | None = None

    async def start(self) -> None:
        """Serve the partitions of the current image, then follow the ones to come."""
        metadata = self._broker.metadata
        image = metadata.image
        await self._apply(image, is_start=True)
        metadata.subscribe(self._handle_image)
        self._task = self._broker.loop.create_task(self._follow())
        self._changed.set()

    async def stop(self) -> None:
        """Stop following; what is being applied is finished first."""
        if self._task is None:
            return
        task, self._task = self._task, None
        self._changed.set()
        await task

    def topic_config(self, configs: Mapping[str, str]) -> EffectiveConfig:
        """Return every config of a topic with these overrides, as it holds now."""
        return self._defaults.effective(configs)

    def broker_config(self) -> EffectiveConfig:
        """Return every config of this broker, dynamic ones included, as it holds now."""
        return self._broker_config

    def log_config(self, configs: Mapping[str, str]) -> LogConfig:
        """Return what a topic with these overrides means for its logs."""
        key = tuple(sorted(configs.items()))
        config = self._log_configs.get(key)
        if config is None:
            entries = self._defaults.effective(configs)
            config = LogConfig.from_topic({name: entry.value for name, entry in entries.items()})
            self._log_configs[key] = config
        return config

    def problem(self) -> str | None:
        """What keeps the partitions from being those of the metadata; None where nothing does."""
        if self._failure is not None:
            return self._failure
        if self._failed:
            return f"{len(self._failed)} partitions are offline: their logs could not be created; it is tried again"
        return None

    async def retry(self) -> None:
        """Try again what could not be done: to apply the newest image, to create logs."""
        if self._failure is not None:
            self._changed.set()
        async with self._changing:
            if self._failed and self._applied is not None:
                wanted = [item for tp, topic_id in self._failed.items() if (item := self._wanted(tp, topic_id))]
                await self._add(wanted)

    def _handle_image(self, _old: ClusterImage, _new: ClusterImage) -> None:
        self._changed.set()

    async def _follow(self) -> None:
        while self._task is not None:
            await self._changed.wait()
            self._changed.clear()
            image = self._broker.metadata.image
            if image is not self._applied:
                try:
                    async with self._changing:
                        await self._apply(image)
                    self._failure = None
                except Exception as error:
                    # The image stays unapplied and the next change tries again: a broker that stops following would
                    # serve on with metadata that grows older and older.
                    self._failure = f"metadata version {image.version} could not be applied: {error}"
                    logger.exception("metadata version %d could not be applied", image.version)

    async def _apply(self, image: ClusterImage, *, is_start: bool = False) -> None:
        before = self._applied
        old_topics: Mapping[str, TopicImage] = {} if before is None else before.topics
        if before is None or before.broker_configs is not image.broker_configs:
            self._take_broker_configs(image)
            reconfigure_all = before is not None
        else:
            reconfigure_all = False
        removed: list[TopicPartition] = []
        wanted: list[_Wanted] = []
        reconfigured: list[TopicImage] = []
        slices = Slices()
        if before is None or before.topics is not image.topics:
            for name, topic in old_topics.items():
                now = image.topics.get(name)
                if now is None or now.topic_id != topic.topic_id:
                    removed.extend(TopicPartition(name, index) for index in range(len(topic.partitions)))
                await slices.pause()
            for name, topic in image.topics.items():
                old = old_topics.get(name)
                if old is not topic:
                    for item in self._changed_partitions(old, topic):
                        wanted.append(item)
                        await slices.pause()
                    if old is not None and old.topic_id == topic.topic_id and old.configs != topic.configs:
                        reconfigured.append(topic)
                await slices.pause()
        await self._remove(removed, gone={tp.topic for tp in removed if tp.topic not in image.topics})
        await self._add(wanted, is_start=is_start)
        for topic in image.topics.values() if reconfigure_all else reconfigured:
            self._configure(topic)
            await slices.pause()
        self._applied = image
        self._broker.partitions.handle_applied(image.version)

    def _take_broker_configs(self, image: ClusterImage) -> None:
        config = self._broker.config
        self._defaults = TopicConfigDefaults(config, image.broker_configs)
        self._broker_config = effective_broker_config(config, image.broker_configs)
        self._log_configs.clear()

    def _changed_partitions(self, old: TopicImage | None, topic: TopicImage) -> Iterator[_Wanted]:
        """The partitions of `topic` held by this broker whose state differs from that in `old`."""
        node_id = self._broker.config.node_id
        states: Sequence[PartitionState] = old.partitions if old is not None and old.topic_id == topic.topic_id else ()
        config = self.log_config(topic.configs)
        for index, state in enumerate(topic.partitions):
            if node_id in state.replicas and (index >= len(states) or states[index] != state):
                yield _Wanted(TopicPartition(topic.name, index), topic.topic_id, state, config)

    async def _remove(self, removed: Sequence[TopicPartition], gone: set[str]) -> None:
        broker = self._broker
        slices = Slices()
        for tp in removed:
            broker.partitions.remove(tp)
            self._failed.pop(tp, None)
            await slices.pause()
        for topic in gone:
            broker.metrics.topic_deleted(topic)
            await slices.pause()
        for start in range(0, len(removed), LOGS_PER_STEP):
            step = [tp for tp in removed[start : start + LOGS_PER_STEP] if tp in broker.logs.logs]
            if step:
                await broker.loop.run_in_executor(broker.executor, self._delete_logs, step)

    async def _add(self, wanted: Sequence[_Wanted], *, is_start: bool = False) -> None:
        broker = self._broker
        # A partition that is nowhere to be found may lie on a directory that is offline: made anew elsewhere it would
        # come up empty, and what was acknowledged would be gone.
        create = not (is_start and any(directory.offline_reason for directory in broker.logs.directories))
        for start in range(0, len(wanted), LOGS_PER_STEP):
            step = wanted[start : start + LOGS_PER_STEP]
            missing = [item for item in step if self._log(item) is None] if create else []
            if missing:
                await broker.loop.run_in_executor(broker.executor, self._create_logs, missing)
            for item in step:
                log = self._log(item)
                if log is not None:
                    self._failed.pop(item.tp, None)
                    log.config = item.config
                    if log.directory.offline_reason is not None:
                        log = None  # it failed before it knew of this partition
                elif create:
                    self._failed[item.tp] = item.topic_id
                broker.partitions.add(item.topic_id, item.tp, item.state, log)
            await asyncio.sleep(0)

    def _log(self, item: _Wanted) -> Log | None:
        """The partition's log; None where there is none, or one of an earlier topic of that name."""
        log = self._broker.logs.logs.get(item.tp)
        return log if log is not None and log.topic_id == item.topic_id else None

    def _wanted(self, tp: TopicPartition, topic_id: bytes) -> _Wanted | None:
        """The partition as the applied image has it now."""
        topic = None if self._applied is None else self._applied.topics.get(tp.topic)
        if topic is None or topic.topic_id != topic_id:
            return None
        return _Wanted(tp, topic_id, topic.partitions[tp.partition], self.log_config(topic.configs))

    def _configure(self, topic: TopicImage) -> None:
        config = self.log_config(topic.configs)
        for partition in self._broker.partitions.of_topic(topic.name):
            if partition.log is not None:
                partition.configure(config)

    # On a worker thread.

    def _create_logs(self, missing: Sequence[_Wanted]) -> None:
        failures: list[tuple[TopicPartition, Exception]] = []
        for item in missing:
            try:
                self._broker.logs.create_log(item.tp, item.topic_id, item.config)
            except (KafkaError, OSError) as error:
                failures.append((item.tp, error))
        if failures:
            tp, first = failures[0]
            logger.warning(
                "%d partitions are offline, their logs could not be created; the first is %s: %s",
                len(failures),
                tp,
                first,
            )

    def _delete_logs(self, removed: Sequence[TopicPartition]) -> None:
        for tp in removed:
            try:
                self._broker.logs.delete_log(tp)
            except (KafkaError, OSError) as error:
                logger.warning("the log of deleted partition %s could not be removed: %s", tp, error)
