"""A consumer's metrics under Kafka's names, written in snake_case. Times in milliseconds, sizes in bytes."""

from __future__ import annotations

from millstream.core.client.consumer.fetching import Fetching
from millstream.core.client.consumer.memory import FetchMemory
from millstream.core.client.consumer.settings import ConsumerSettings
from millstream.core.client.consumer.subscription import SubscriptionState


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
