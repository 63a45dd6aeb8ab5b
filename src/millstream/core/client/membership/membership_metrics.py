"""What a member counts: the names of Kafka's coordinator metrics in snake_case. Owned by the loop.

A rebalance begins when the member stops being settled, and ends when it is again: in a classic group with the rounds,
until what they gave and took was told; in a consumer group with a new assignment, until it is acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from millstream.core.client.averages import Average, Rate
from millstream.core.client.membership.effects import CallKind, MembershipState
from millstream.core.wire import ApiKey

_FAILED: Final = frozenset({MembershipState.FAILED, MembershipState.STALE})
_HOUR_S: Final = 3_600
_NEVER: Final = -1.0


@dataclass(slots=True)
class _Asked:
    """Requests of one kind."""

    time_ms: Average = field(default_factory=Average)
    rate: Rate = field(default_factory=Rate)


class MembershipMetrics:
    """Counters of one membership; times in milliseconds unless a name says seconds."""

    def __init__(self, *, is_consumer_group: bool = False) -> None:
        joining = () if is_consumer_group else (MembershipState.JOINING,)
        self._unsettled = frozenset((MembershipState.RECONCILING, *joining))
        self._joins = _Asked()
        self._syncs = _Asked()
        self._heartbeats = _Asked()
        self._rebalance_ms = Average()
        self._rebalances = Rate()
        self._failures = Rate()
        self._calls = {kind: Average() for kind in CallKind}
        # When the rebalance under way began; None while there is none.
        self._began_ms: float | None = None
        self._last_rebalance_ms: float | None = None
        self._last_heartbeat_ms: float | None = None

    def note_asked(self, message: Any, now_ms: float) -> None:
        """A request goes out."""
        if ApiKey(message.__wire__.key) in (ApiKey.HEARTBEAT, ApiKey.CONSUMER_GROUP_HEARTBEAT):
            self._last_heartbeat_ms = now_ms

    def note_answered(self, message: Any, response: Any, took_ms: float, now_ms: float) -> None:
        """And was answered. Of a round only what succeeded counts."""
        match ApiKey(message.__wire__.key):
            case ApiKey.JOIN_GROUP if not response.error_code:
                kind = self._joins
            case ApiKey.SYNC_GROUP if not response.error_code:
                kind = self._syncs
            case ApiKey.HEARTBEAT | ApiKey.CONSUMER_GROUP_HEARTBEAT:
                kind = self._heartbeats
            case _:
                return
        kind.time_ms.add(took_ms)
        kind.rate.note(now_ms)

    def note_called(self, kind: CallKind, took_ms: float) -> None:
        """The owner was told of partitions, and was so long about it."""
        self._calls[kind].add(took_ms)

    def note_state(self, state: MembershipState, now_ms: float) -> None:
        """The member is in this state now; the same as before is no news."""
        if state in self._unsettled:
            if self._began_ms is None:
                self._began_ms = now_ms
            return
        began_ms, self._began_ms = self._began_ms, None
        if began_ms is None:
            return
        if state is MembershipState.STABLE:
            self._rebalance_ms.add(now_ms - began_ms)
            self._rebalances.note(now_ms)
            self._last_rebalance_ms = now_ms
        elif state in _FAILED:
            self._failures.note(now_ms)

    def values(self, now_ms: float) -> dict[str, float]:
        """Return every counter by its name."""
        found: dict[str, float] = {}
        for name, kind in (("join", self._joins), ("sync", self._syncs)):
            found |= {
                f"{name}_rate": kind.rate.per_s(now_ms),
                f"{name}_total": kind.rate.total,
                f"{name}_time_avg": kind.time_ms.mean,
                f"{name}_time_max": kind.time_ms.most,
            }
        for call, average in self._calls.items():
            found[f"partition_{call.value}_latency_avg"] = average.mean
            found[f"partition_{call.value}_latency_max"] = average.most
        return found | {
            "heartbeat_rate": self._heartbeats.rate.per_s(now_ms),
            "heartbeat_total": self._heartbeats.rate.total,
            "heartbeat_response_time_max": self._heartbeats.time_ms.most,
            "last_heartbeat_seconds_ago": _seconds_ago(self._last_heartbeat_ms, now_ms),
            "rebalance_latency_avg": self._rebalance_ms.mean,
            "rebalance_latency_max": self._rebalance_ms.most,
            "rebalance_latency_total": self._rebalance_ms.total,
            "rebalance_total": self._rebalances.total,
            "rebalance_rate_per_hour": self._rebalances.per_s(now_ms) * _HOUR_S,
            "failed_rebalance_total": self._failures.total,
            "failed_rebalance_rate_per_hour": self._failures.per_s(now_ms) * _HOUR_S,
            "last_rebalance_seconds_ago": _seconds_ago(self._last_rebalance_ms, now_ms),
        }


def _seconds_ago(at_ms: float | None, now_ms: float) -> float:
    return _NEVER if at_ms is None else (now_ms - at_ms) // 1000
