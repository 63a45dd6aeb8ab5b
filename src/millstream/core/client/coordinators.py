"""Which broker coordinates a group, and asking it: looked up by FindCoordinator each time, nothing is kept.

A coordinator that loads, moved or is not there yet is looked up and asked again until the deadline.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeVar

from millstream.core.client.client import Client, FinalKafkaError
from millstream.core.wire import ApiKey, ErrorCode, KafkaError, error_code
from millstream.core.wire.messages.find_coordinator import FindCoordinatorRequest, FindCoordinatorResponse

_T = TypeVar("_T")
_SEVERAL_KEYS_VERSION: Final = 4  # of FindCoordinator
# What is mended by asking again; others that are called retriable are the member's or the topic's affair.
_ASKED_AGAIN: Final = frozenset(
    {
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
        ErrorCode.UNSTABLE_OFFSET_COMMIT,
    }
)
_SENTENCES: Final[Mapping[ErrorCode, str]] = {
    ErrorCode.GROUP_ID_NOT_FOUND: "there is no group {group}; `millstream groups list` shows those there are",
    ErrorCode.NON_EMPTY_GROUP: "group {group} has members: stop them first",
    ErrorCode.UNKNOWN_MEMBER_ID: "group {group} has members, its offsets are theirs: stop them first",
    ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC: "{what}: group {group} is subscribed to the topic; stop its members first",
}


async def find_coordinators(
    client: Client, group_ids: Iterable[str], *, timeout_ms: int | None = None
) -> dict[int, list[str]]:
    """Return the groups by the node that coordinates them; waits for coordinators that are not available yet."""
    wanted = list(dict.fromkeys(group_ids))

    async def look() -> dict[int, list[str]]:
        by_node: dict[int, list[str]] = {}
        several = (await client.connection()).version(ApiKey.FIND_COORDINATOR) >= _SEVERAL_KEYS_VERSION
        for keys in [wanted] if several else [[group_id] for group_id in wanted]:
            request = FindCoordinatorRequest(key=keys[0] if keys else "", coordinator_keys=keys)
            response: FindCoordinatorResponse = await client.request(request, timeout_ms=timeout_ms)
            if not several:
                check(response.error_code, response.error_message, f"coordinator of group {keys[0]!r}")
                by_node.setdefault(response.node_id, []).append(keys[0])
            for found in response.coordinators if several else ():
                check(found.error_code, found.error_message, f"coordinator of group {found.key!r}")
                by_node.setdefault(found.node_id, []).append(found.key)
        if not by_node.keys() <= client.cluster.brokers.keys():
            await client.metadata([], timeout_ms=timeout_ms)
        return by_node

    return await client.retried(look, timeout_ms=timeout_ms) if wanted else {}


async def of_coordinator(
    client: Client, group_id: str, ask: Callable[[int], Awaitable[_T]], timeout_ms: int | None
) -> _T:
    """Ask the coordinator of one group, whoever that is at each attempt."""

    async def attempt() -> _T:
        (node,) = await find_coordinators(client, [group_id], timeout_ms=timeout_ms)
        return await ask(node)

    return await client.retried(attempt, timeout_ms=timeout_ms)


async def of_coordinators(
    client: Client,
    group_ids: Iterable[str],
    ask: Callable[[int, list[str]], Awaitable[dict[str, _T]]],
    timeout_ms: int | None,
) -> dict[str, _T]:
    """Ask the coordinators of several groups; those that answered are not asked again where another must be."""
    wanted = list(dict.fromkeys(group_ids))
    found: dict[str, _T] = {}

    async def attempt() -> None:
        rest = [group_id for group_id in wanted if group_id not in found]
        for node, groups in (await find_coordinators(client, rest, timeout_ms=timeout_ms)).items():
            found.update(await ask(node, groups))

    await client.retried(attempt, timeout_ms=timeout_ms)
    return {group_id: found[group_id] for group_id in wanted if group_id in found}


def check(code: int, message: str | None, what: str, group_id: str | None = None) -> None:
    """Raise what an error code means, with `what` failed; nothing for NONE."""
    if error := error_of(code, message, what, group_id):
        raise error


def final_error(code: int, message: str | None, what: str, group_id: str) -> KafkaError | None:
    """Return an error that belongs to its group alone; raise one that asking again may mend."""
    error = error_of(code, message, what, group_id)
    if error is not None and error.code in _ASKED_AGAIN:
        raise error
    return error


def error_of(code: int, message: str | None, what: str, group_id: str | None = None) -> KafkaError | None:
    """Return what an error code means as an error that says `what` failed, None for NONE."""
    if code == ErrorCode.NONE:
        return None
    known = error_code(code)
    if group_id is not None and known in _SENTENCES:
        return FinalKafkaError(known, _SENTENCES[known].format(group=repr(group_id), what=what))
    kind = KafkaError if known in _ASKED_AGAIN else FinalKafkaError
    return kind(known, f"{what}: {(message or known.sentence).rstrip('.')}")
