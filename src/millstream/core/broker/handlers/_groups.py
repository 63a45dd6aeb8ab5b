"""What the handlers of group requests share: answers made of several shards' answers, errors for every partition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from millstream.core.broker.context import Operation, RequestContext, ResourceType
from millstream.core.broker.delayed import Delayed

R = TypeVar("R")


def permits_group(context: RequestContext, operation: Operation, group_id: str) -> bool:
    """Whether the one who asks may do this to a group."""
    return context.permits(operation, ResourceType.GROUP, group_id)


def permits_topic(context: RequestContext, operation: Operation, topic: str) -> bool:
    """Whether the one who asks may do this to a topic."""
    return context.permits(operation, ResourceType.TOPIC, topic)


def gather(parts: Sequence[Delayed[Any]], combine: Callable[[list[Any]], R]) -> Delayed[R]:
    """Return what `combine` makes of the parts' answers, in their order, once all are there."""
    gathered: Delayed[R] = Delayed()
    missing = len(parts)

    def part_done(_part: Delayed[Any]) -> None:
        nonlocal missing
        missing -= 1
        if not missing:
            finish()

    def finish() -> None:
        try:
            gathered.complete(combine([part.result() for part in parts]))
        except Exception as error:  # noqa: BLE001  whoever waits is told
            gathered.fail(error)

    def cancel() -> None:
        for part in parts:
            part.cancel()

    if not parts:
        finish()
    for part in parts:
        part.on_complete(part_done)
    gathered.on_cancel(cancel)
    return gathered


def then(delayed: Delayed[Any], change: Callable[[Any], R]) -> Delayed[R]:
    """Return what `change` makes of an answer, once it is there."""
    return gather([delayed], lambda answers: change(answers[0]))


def done(response: R) -> Delayed[R]:
    """Return an answer that is there already."""
    delayed: Delayed[R] = Delayed()
    delayed.complete(response)
    return delayed
