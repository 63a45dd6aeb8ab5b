"""The next step of one member toward its target assignment (KIP-848). Pure.

A member gives up before it gets: while it still has a partition that it is to lose, it stays in its old epoch and is
told a smaller assignment. Once it says that it gave them up it moves to the target's epoch, and gets what is free of
what it is to get; the rest comes with later heartbeats, when their owners have given up in turn.

    STABLE --(a new target takes partitions away)--> UNREVOKED_PARTITIONS --(given up)--> STABLE | UNRELEASED_PARTITIONS
    STABLE --(a new target)--> STABLE | UNRELEASED_PARTITIONS --(all of it is free)--> STABLE
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import replace
from typing import Final, Protocol

from millstream.core.groups.consumer.member import ConsumerMember, MemberState, Owned, Target
from millstream.core.wire import ErrorCode, KafkaError

_NO_PARTITIONS: Final[frozenset[int]] = frozenset()
_NONE_OWNED: Final[dict[int, int]] = {}


class TopicPartitions(Protocol):
    """Partitions of one topic as a request names them."""

    @property
    def topic_id(self) -> bytes: ...

    @property
    def partitions(self) -> list[int]: ...


def reconcile(
    member: ConsumerMember,
    *,
    target_epoch: int,
    target: Target,
    subscription_changed: bool,
    subscribed: Container[bytes],
    owner_of: Callable[[bytes, int], str | None],
    owned: Iterable[TopicPartitions] | None,
) -> ConsumerMember:
    """Return the member after its next step, itself where there is none.

    `subscribed` are the ids of the topics that it wants to read, `owner_of` says which member has a partition, `owned`
    is what the member says it has, None where it says nothing. Raises KafkaError.
    """
    match member.state:
        case MemberState.STABLE:
            if member.member_epoch != target_epoch:
                return _next(member, target_epoch, target, subscribed, owner_of, owned)
            return _without_unsubscribed(member, subscribed, owned) if subscription_changed else member
        case MemberState.UNREVOKED_PARTITIONS:
            if _still_owns(owned, member.pending_revocation):
                return _without_unsubscribed(member, subscribed, owned) if subscription_changed else member
            return _next(member, target_epoch, target, subscribed, owner_of, owned)
        case MemberState.UNRELEASED_PARTITIONS:
            return _next(member, target_epoch, target, subscribed, owner_of, owned)
        case MemberState.UNKNOWN:
            if owned is None or list(owned):
                raise KafkaError(
                    ErrorCode.FENCED_MEMBER_EPOCH,
                    "The consumer group member is in a unknown state. "
                    "The member must abandon all its partitions and rejoin.",
                )
            fresh = replace(member, member_epoch=target_epoch)
            return _next(fresh, target_epoch, target, subscribed, owner_of, owned)


def _still_owns(owned: Iterable[TopicPartitions] | None, revoked: Owned) -> bool:
    """Whether the member may still have a partition that it is to give up; it has, unless it says otherwise."""
    if owned is None:
        return True
    return any(
        partition in revoked[topic.topic_id]
        for topic in owned
        if topic.topic_id in revoked
        for partition in topic.partitions
    )


def _moved(
    member: ConsumerMember, epoch: int, state: MemberState, assigned: Owned, pending_revocation: Owned
) -> ConsumerMember:
    return replace(
        member,
        state=state,
        member_epoch=epoch,
        previous_member_epoch=member.member_epoch,
        assigned=assigned,
        pending_revocation=pending_revocation,
    )


def _without_unsubscribed(
    member: ConsumerMember, subscribed: Container[bytes], owned: Iterable[TopicPartitions] | None
) -> ConsumerMember:
    """Take the topics away that it wants no more, before a new target does: it gets nothing that it did not ask for."""
    dropped = {topic_id: partitions for topic_id, partitions in member.assigned.items() if topic_id not in subscribed}
    if not dropped:
        return member
    assigned = {topic_id: partitions for topic_id, partitions in member.assigned.items() if topic_id not in dropped}
    pending = dict(member.pending_revocation)
    for topic_id, partitions in dropped.items():
        pending[topic_id] = {**pending.get(topic_id, _NONE_OWNED), **partitions}
    if _still_owns(owned, pending):
        return _moved(member, member.member_epoch, MemberState.UNREVOKED_PARTITIONS, assigned, pending)
    return replace(member, previous_member_epoch=member.member_epoch, assigned=assigned)


def _next(
    member: ConsumerMember,
    target_epoch: int,
    target: Target,
    subscribed: Container[bytes],
    owner_of: Callable[[bytes, int], str | None],
    owned: Iterable[TopicPartitions] | None,
) -> ConsumerMember:
    assigned: dict[bytes, dict[int, int]] = {}
    revoked: dict[bytes, dict[int, int]] = {}
    free: dict[bytes, list[int]] = {}
    is_waiting = False
    for topic_id in {**target, **member.assigned}:
        # What it does not subscribe to any more it does not get, whatever an older target says.
        wanted = target.get(topic_id, _NO_PARTITIONS) if topic_id in subscribed else _NO_PARTITIONS
        has = member.assigned.get(topic_id, _NONE_OWNED)
        kept = {partition: epoch for partition, epoch in has.items() if partition in wanted}
        if kept:
            assigned[topic_id] = kept
        if len(kept) < len(has):
            revoked[topic_id] = {partition: epoch for partition, epoch in has.items() if partition not in wanted}
        if len(kept) < len(wanted):
            for partition in sorted(wanted):
                if partition in kept:
                    continue
                # One that it was giving up itself is free for it: nobody else can have it meanwhile.
                was_giving_up = partition in member.pending_revocation.get(topic_id, _NONE_OWNED)
                if was_giving_up or owner_of(topic_id, partition) is None:
                    free.setdefault(topic_id, []).append(partition)
                else:
                    is_waiting = True
    if revoked and _still_owns(owned, revoked):
        return _moved(member, member.member_epoch, MemberState.UNREVOKED_PARTITIONS, assigned, revoked)
    for topic_id, partitions in free.items():
        assigned.setdefault(topic_id, {}).update(dict.fromkeys(partitions, target_epoch))
    state = MemberState.UNRELEASED_PARTITIONS if is_waiting else MemberState.STABLE
    return _moved(member, target_epoch, state, assigned, {})
