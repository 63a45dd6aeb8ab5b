"""What a producer counts: Kafka's names in snake_case. Owned by the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from millstream.core.client.averages import Average


@dataclass(slots=True)
class SenderMetrics:
    """Counters of the sender; `values` names them as Kafka does."""

    records_sent: int = 0
    errors: int = 0
    retries: int = 0
    bytes_sent: int = 0
    batch_splits: int = 0
    batch_bytes: Average = field(default_factory=Average)
    batch_records: Average = field(default_factory=Average)
    request_records: Average = field(default_factory=Average)
    request_bytes: Average = field(default_factory=Average)
    latency_ms: Average = field(default_factory=Average)
    queued_ms: Average = field(default_factory=Average)
    throttle_ms: Average = field(default_factory=Average)
    plain_bytes: int = 0
    compressed_bytes: int = 0

    def note_batch(self, size_bytes: int, count: int) -> None:
        """A batch was closed."""
        self.batch_bytes.add(size_bytes)
        self.batch_records.add(count)

    def note_compressed(self, plain_bytes: int, compressed_bytes: int) -> None:
        """A batch was compressed."""
        self.plain_bytes += plain_bytes
        self.compressed_bytes += compressed_bytes

    def note_queued(self, waited_ms: float) -> None:
        """A batch goes out for the first time, so long after its first record."""
        self.queued_ms.add(waited_ms)

    def note_request(self, records: int, size_bytes: int) -> None:
        """A request of so many records goes out."""
        self.bytes_sent += size_bytes
        self.request_bytes.add(size_bytes)
        self.request_records.add(records)

    def note_answered(self, latency_ms: float, throttle_ms: int) -> None:
        """A request was answered."""
        self.latency_ms.add(latency_ms)
        self.throttle_ms.add(throttle_ms)

    def values(self) -> Mapping[str, float]:
        """Return every counter by its name."""
        compressed = self.compressed_bytes / self.plain_bytes if self.plain_bytes else 1.0
        return {
            "record_send_total": self.records_sent,
            "record_error_total": self.errors,
            "record_retry_total": self.retries,
            "outgoing_byte_total": self.bytes_sent,
            "batch_split_total": self.batch_splits,
            "batch_size_avg": self.batch_bytes.mean,
            "batch_size_max": self.batch_bytes.most,
            "records_per_batch_avg": self.batch_records.mean,
            "records_per_request_avg": self.request_records.mean,
            "request_total": self.request_bytes.count,
            "request_size_avg": self.request_bytes.mean,
            "request_size_max": self.request_bytes.most,
            "request_latency_avg": self.latency_ms.mean,
            "request_latency_max": self.latency_ms.most,
            "record_queue_time_avg": self.queued_ms.mean,
            "record_queue_time_max": self.queued_ms.most,
            "produce_throttle_time_avg": self.throttle_ms.mean,
            "produce_throttle_time_max": self.throttle_ms.most,
            "compression_rate_avg": compressed,
        }
