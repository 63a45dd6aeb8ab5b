"""A consumer's metrics under Kafka's names, written in snake_case. Times in milliseconds, sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from millstream.core.client.averages import Average
from millstream.core.client.consumer.fetching import Fetching
from millstream.core.client.consumer.memory import FetchMemory
from millstream.core.client.consumer.settings import ConsumerSettings
from millstream.core.client.consumer.subscription import SubscriptionState

_NEVER: Final = -1.0


@dataclass(slots=True)
class PollMetrics:
    """How the application polls; times in milliseconds."""

    between_ms: Average = field(default_factory=Average)
    # The share of each poll of the time since the one before began.
    idle: Average = field(default_factory=Average)
    _began_ms: float | None = None
    _since_last_ms: float = 0.0

    def begin(self, now_ms: float) -> None:
        """A poll begins."""
        if self._began_ms is not None:
            self._since_last_ms = now_ms - self._began_ms
            self.between_ms.add(self._since_last_ms)
        self._began_ms = now_ms

    def end(self, now_ms: float) -> None:
        """And is over."""
        assert self._began_ms is not None
        took_ms = now_ms - self._began_ms
        whole_ms = took_ms + self._since_last_ms
        self.idle.add(took_ms / whole_ms if whole_ms else 0.0)

    def values(self, now_ms: float) -> dict[str, float]:
        """Return them by name."""
        return {
            "last_poll_seconds_ago": _NEVER if self._began_ms is None else (now_ms - self._began_ms) // 1000,
            "poll_idle_ratio_avg": self.idle.mean,
            "time_between_poll_avg": self.between_ms.mean,
            "time_between_poll_max": self.between_ms.most,
        }


def consumer_metrics(
    fetching: Fetching, memory: FetchMemory, subscription: SubscriptionState, settings: ConsumerSettings
) -> dict[str, float]:
    """Return them as of now; averages are since the start."""
    counters = fetching.counters
    fetches = max(counters.fetches, 1)
    lags = {}
    for state in subscription:
        end = state.last_stable_offset if settings.read_committed else state.high_watermark
        if state.position is not None and end >= 0:
            lags[state.tp] = max(end - state.position.offset, 0)
    return {
        "assigned_partitions": float(len(subscription)),
        "bytes_consumed_total": float(counters.fetch_bytes),
        "fetch_buffer_held_bytes": float(memory.held_bytes),
        "fetch_latency_avg": counters.latency_ms_sum / fetches,
        "fetch_latency_max": counters.latency_ms_max,
        "fetch_size_avg": counters.fetch_bytes / fetches,
        "fetch_throttle_time_avg": counters.throttle_ms_sum / fetches,
        "fetch_throttle_time_max": float(counters.throttle_ms_max),
        "fetch_total": float(counters.fetches),
        "records_consumed_total": float(counters.records),
        "records_lag_max": float(max(lags.values(), default=0)),
        "records_per_request_avg": counters.records / fetches,
        **{f"records_lag.{tp}": float(lag) for tp, lag in lags.items()},
    }
