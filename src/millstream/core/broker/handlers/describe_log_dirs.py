"""DescribeLogDirs (key 35): what lies on each log directory, and how full its disk is (KIP-113).

A replica that moves to another directory stands in both; `is_future_key` marks the copy.

Versions  1 throttle time   2 flexible   3 error code   4 total and usable bytes (KIP-827)
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.delayed import Delayed
from millstream.core.broker.disk_space import DiskSpace, disk_space
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.describe_log_dirs import (
    DescribeLogDirsPartition,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    DescribeLogDirsResult,
    DescribeLogDirsTopic,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.log import LogDirectory


PARTITIONS_PER_STEP: Final = 500  # partitions answered in one pass of the loop: about a millisecond


def describe_log_dirs(
    broker: Broker, request: DescribeLogDirsRequest, context: RequestContext
) -> DescribeLogDirsResponse | Delayed[DescribeLogDirsResponse]:
    """Answer every log directory; one that is offline answers KAFKA_STORAGE_ERROR and no partitions."""
    if not context.permits_cluster(Operation.DESCRIBE):
        return DescribeLogDirsResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    return Delayed.from_coroutine(broker.loop, _describe_log_dirs(broker, request))


async def _describe_log_dirs(broker: Broker, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse:
    wanted = None if request.topics is None else {topic.topic: set(topic.partitions) for topic in request.topics}
    directories = list(broker.logs.directories)
    results: dict[int, DescribeLogDirsResult] = {}
    for directory in directories:
        space = None
        if directory.offline_reason is None:
            space = await broker.loop.run_in_executor(broker.executor, disk_space, directory.path)
        results[id(directory)] = _result(directory, space)
    topics: dict[tuple[int, str], DescribeLogDirsTopic] = {}

    def tell(directory: LogDirectory, name: str, told: DescribeLogDirsPartition) -> None:
        key = (id(directory), name)
        topic = topics.get(key)
        if topic is None:
            topic = topics[key] = DescribeLogDirsTopic(name=name)
            results[id(directory)].topics.append(topic)
        topic.partitions.append(told)

    futures = broker.control.mover.futures
    for count, partition in enumerate(broker.partitions):
        if count % PARTITIONS_PER_STEP == PARTITIONS_PER_STEP - 1:
            await asyncio.sleep(0)
        if wanted is not None and partition.index not in wanted.get(partition.topic, ()):
            continue
        log = partition.log
        if log is None or log.directory.offline_reason is not None:
            continue
        future = futures.get(log.topic_partition)
        told = _partition(partition.index, log.size_bytes, max(partition.high_watermark - log.log_end_offset, 0))
        tell(log.directory, partition.topic, told)
        if future is not None and future.log is log and future.directory.offline_reason is None:
            told = _partition(partition.index, future.size_bytes, max(log.log_end_offset - future.log_end_offset, 0))
            told.is_future_key = True
            tell(future.directory, partition.topic, told)
    return DescribeLogDirsResponse(results=list(results.values()))


def _partition(index: int, size_bytes: int, offset_lag: int) -> DescribeLogDirsPartition:
    return DescribeLogDirsPartition(partition_index=index, partition_size=size_bytes, offset_lag=offset_lag)


def _result(directory: LogDirectory, space: DiskSpace | None) -> DescribeLogDirsResult:
    if directory.offline_reason is not None or space is None:
        return DescribeLogDirsResult(error_code=ErrorCode.KAFKA_STORAGE_ERROR, log_dir=directory.path)
    return DescribeLogDirsResult(log_dir=directory.path, total_bytes=space.total_bytes, usable_bytes=space.usable_bytes)
