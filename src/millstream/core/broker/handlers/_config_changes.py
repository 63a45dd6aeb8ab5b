"""What AlterConfigs and IncrementalAlterConfigs share: changes of resources, planned on the image, committed at once.

A resource is changed whole or not at all, and one that cannot be changed never keeps the others from it. The planning
is `cluster.configs`; here are the checks of the request itself, who may change what, and the levels of loggers, which
are no metadata and last until the broker ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.delayed import Delayed
from millstream.core.broker.handlers._admin import NO_FAULT, TIMED_OUT, Fault, commit_applied, may, walk
from millstream.core.broker.handlers._groups import permits_group
from millstream.core.broker.log_levels import check_log_level, set_log_level
from millstream.core.cluster import ClusterImage
from millstream.core.cluster import Operation as MetadataOperation
from millstream.core.cluster.configs import (
    AlterOperation,
    ConfigChange,
    ResourceType,
    broker_id,
    plan_alter_configs,
    plan_incremental_alter_configs,
)
from millstream.core.wire import ErrorCode, KafkaError

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker

R = TypeVar("R")

APPLY_TIMEOUT_MS: Final = 30_000  # these requests carry no time limit of their own


class ResourceChanges(NamedTuple):
    """One resource's changes. `replaces_all`: configs that are not named lose their setting (AlterConfigs)."""

    resource_type: int
    resource_name: str
    changes: Sequence[ConfigChange]
    replaces_all: bool


def alter_resources(
    broker: Broker,
    resources: Sequence[ResourceChanges],
    *,
    validate_only: bool,
    context: RequestContext,
    answer: Callable[[list[tuple[ResourceChanges, Fault]]], R],
) -> Delayed[R]:
    """Make the changes, unless they are only to be validated; `answer` makes the response of each one's outcome."""

    async def respond() -> R:
        faults = await _alter(broker, resources, validate_only=validate_only, context=context)
        return answer(list(zip(resources, faults, strict=True)))

    return Delayed.from_coroutine(broker.loop, respond())


async def _alter(
    broker: Broker, resources: Sequence[ResourceChanges], *, validate_only: bool, context: RequestContext
) -> list[Fault]:
    """Return each resource's outcome, in order."""
    seen = Counter((resource.resource_type, resource.resource_name) for resource in resources)
    faults = [NO_FAULT] * len(resources)
    accepted: list[int] = []
    for index, resource in enumerate(resources):
        if seen[resource.resource_type, resource.resource_name] > 1:
            faults[index] = Fault(ErrorCode.INVALID_REQUEST, "Each resource must appear at most once.")
        elif (fault := _refused(context, resource)) is not None:
            faults[index] = fault
        else:
            accepted.append(index)

    def plan(image: ClusterImage) -> Iterator[MetadataOperation]:
        for index in accepted:
            faults[index] = NO_FAULT
            try:
                yield from _plan(broker, image, resources[index])
            except KafkaError as error:
                faults[index] = Fault.of(error)

    if validate_only:
        await walk(plan(broker.metadata.image))
        return faults
    failure: Fault | None = None
    try:
        if not await commit_applied(broker, plan, APPLY_TIMEOUT_MS):
            failure = Fault(ErrorCode.REQUEST_TIMED_OUT, TIMED_OUT)
    except KafkaError as error:
        failure = Fault.of(error)
    if failure is not None:
        return [failure if index in accepted and fault is NO_FAULT else fault for index, fault in enumerate(faults)]
    for index in accepted:
        if resources[index].resource_type == ResourceType.BROKER_LOGGER and faults[index] is NO_FAULT:
            for change in resources[index].changes:
                set_log_level(change.name, _level(change))
    return faults


def _refused(context: RequestContext, resource: ResourceChanges) -> Fault | None:
    if resource.resource_type == ResourceType.TOPIC:
        if not may(context, Operation.ALTER_CONFIGS, resource.resource_name):
            return Fault(ErrorCode.TOPIC_AUTHORIZATION_FAILED, "Topic authorization failed.")
    elif resource.resource_type == ResourceType.GROUP:
        if not permits_group(context, Operation.ALTER_CONFIGS, resource.resource_name):
            return Fault(ErrorCode.GROUP_AUTHORIZATION_FAILED, "Group authorization failed.")
    elif not context.permits_cluster(Operation.ALTER_CONFIGS):
        return Fault(ErrorCode.CLUSTER_AUTHORIZATION_FAILED, "Cluster authorization failed.")
    return None


def _plan(broker: Broker, image: ClusterImage, resource: ResourceChanges) -> Sequence[MetadataOperation]:
    node_id = broker.config.node_id
    kind, name = resource.resource_type, resource.resource_name
    if resource.replaces_all:
        if kind == ResourceType.BROKER_LOGGER:  # its levels are edited one by one, never replaced as a whole
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unknown resource type {kind}")
        pairs = [(change.name, change.value) for change in resource.changes]
        return plan_alter_configs(image, kind, name, pairs, node_id=node_id, broker_config=broker.config)
    if kind == ResourceType.BROKER_LOGGER:
        _check_loggers(name, resource.changes, node_id)
        return []
    return plan_incremental_alter_configs(
        image, kind, name, resource.changes, node_id=node_id, broker_config=broker.config
    )


def _check_loggers(name: str, changes: Sequence[ConfigChange], node_id: int) -> None:
    if name == "":
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Node id must be an integer, but it is: {name}")
    broker_id(name, node_id)
    for change in changes:
        if change.operation in (AlterOperation.APPEND, AlterOperation.SUBTRACT):
            raise KafkaError(
                ErrorCode.INVALID_REQUEST,
                f"{AlterOperation(change.operation).name} operation is not allowed for the BROKER_LOGGER resource",
            )
        check_log_level(change.name, _level(change))


def _level(change: ConfigChange) -> str | None:
    return change.value if change.operation == AlterOperation.SET else None
