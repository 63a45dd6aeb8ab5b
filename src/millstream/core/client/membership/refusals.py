"""What a coordinator's refusals mean to the person who has to mend them; one table for both protocols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from millstream.core.client.membership.machine import MemberConfig
from millstream.core.wire import ErrorCode, KafkaError

_SENTENCES: Final[Mapping[ErrorCode, str]] = {
    ErrorCode.FENCED_INSTANCE_ID: "another consumer with group.instance.id {instance!r} is in group {group!r} now; "
    "give each its own",
    ErrorCode.UNRELEASED_INSTANCE_ID: "another consumer with group.instance.id {instance!r} is in group {group!r}: "
    "stop it, or give each its own",
    ErrorCode.GROUP_MAX_SIZE_REACHED: "group {group!r} has as many members as the broker's group.max.size or "
    "group.consumer.max.size allows",
    ErrorCode.INCONSISTENT_GROUP_PROTOCOL: "this member and the others of group {group!r} have no assignor in common, "
    "or it is no group of {kind!r} members: use the same partition.assignment.strategy",
    ErrorCode.INVALID_SESSION_TIMEOUT: "the broker does not allow session.timeout.ms={session}: see its "
    "group.min.session.timeout.ms and group.max.session.timeout.ms",
    ErrorCode.INVALID_GROUP_ID: "group id {group!r} is not allowed",
    ErrorCode.GROUP_AUTHORIZATION_FAILED: "not allowed to join group {group!r}",
    ErrorCode.UNSUPPORTED_VERSION: "the broker, or group {group!r} as it is, does not take this member: "
    "group.protocol={protocol} may be one that it does not serve",
}


def refused(
    code: ErrorCode, config: MemberConfig, *, protocol: str, kind: str = "consumer", message: str | None = None
) -> KafkaError:
    """Return the error of a member that was refused; `message` is what the broker says beyond the code."""
    sentence = _SENTENCES.get(code)
    if sentence is None:
        text = f"group {config.group_id!r}: {message or code.sentence}"
    else:
        text = sentence.format(
            group=config.group_id,
            instance=config.instance_id,
            session=config.session_timeout_ms,
            kind=kind,
            protocol=protocol,
        )
    return KafkaError(code, text)
