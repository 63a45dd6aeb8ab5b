"""What the broker counts, under the names Kafka's usual exporter gives.

The hot path keeps the objects it counts on: `BrokerMetrics` for all topics, one `TopicMetrics` a topic (held by its
partitions), one `RequestMetrics` an API (held by the handler table). Counting is `metrics.bytes_in += n`: plain
attributes, read into families when somebody scrapes. Owned by the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from millstream.core.metrics import Counter, Registry, Summary
from millstream.core.wire import APIS, ApiKey, error_code

# Attribute, name of the family, what it counts. Without a label the sum of all topics, as Kafka has it.
_TOPIC_COUNTERS: Final = (
    ("messages_in", "kafka_server_brokertopicmetrics_messagesin_total", "Records appended."),
    ("bytes_in", "kafka_server_brokertopicmetrics_bytesin_total", "Bytes of record batches appended."),
    ("bytes_out", "kafka_server_brokertopicmetrics_bytesout_total", "Bytes of record batches sent to consumers."),
    ("bytes_rejected", "kafka_server_brokertopicmetrics_bytesrejected_total", "Bytes of record batches refused."),
    (
        "produce_requests",
        "kafka_server_brokertopicmetrics_totalproducerequests_total",
        "Partitions asked for in Produce requests.",
    ),
    (
        "fetch_requests",
        "kafka_server_brokertopicmetrics_totalfetchrequests_total",
        "Partitions asked for in Fetch requests.",
    ),
    (
        "failed_produce_requests",
        "kafka_server_brokertopicmetrics_failedproducerequests_total",
        "Partitions of Produce requests answered with an error.",
    ),
    (
        "failed_fetch_requests",
        "kafka_server_brokertopicmetrics_failedfetchrequests_total",
        "Partitions of Fetch requests answered with an error.",
    ),
)

TOPICS_COUNT_MAX: Final = 10_000  # topics counted by name; all others together under `_other`


class TopicMetrics:
    """The counters of one topic."""

    __slots__ = tuple(attribute for attribute, _, _ in _TOPIC_COUNTERS)

    def __init__(self) -> None:
        self.messages_in = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.bytes_rejected = 0
        self.produce_requests = 0
        self.fetch_requests = 0
        self.failed_produce_requests = 0
        self.failed_fetch_requests = 0


class RequestMetrics:
    """The counters of one API."""

    __slots__ = ("_errors", "_name", "_owner", "_versions", "total_time_us")

    def __init__(self, owner: BrokerMetrics, name: str) -> None:
        self._owner = owner
        self._name = name
        self._versions: dict[int, Counter] = {}
        self._errors: dict[int, Counter] = {}
        # From the last byte of a request to its response handed to the socket: `observe(microseconds)`.
        self.total_time_us: Summary = owner.request_times.labels(name)

    def version(self, api_version: int) -> Counter:
        """The counter of requests in this version; keep it, or pay one dictionary lookup."""
        counter = self._versions.get(api_version)
        if counter is None:
            counter = self._versions[api_version] = self._owner.requests.labels(self._name, str(api_version))
        return counter

    def error(self, code: int) -> Counter:
        """The counter of responses with this error code (NONE is one, as in Kafka)."""
        counter = self._errors.get(code)
        if counter is None:
            name = error_code(code).name
            counter = self._errors[code] = self._owner.errors.labels(self._name, name)
        return counter


class BrokerMetrics:
    """Every counter of the broker, and the registry that `/metrics` renders."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.requests = self.registry.counter(
            "kafka_network_requestmetrics_requests_total", "Requests by API and version.", "request", "version"
        )
        self.errors = self.registry.counter(
            "kafka_network_requestmetrics_errors_total", "Responses by API and error code.", "request", "error"
        )
        self.request_times = self.registry.summary(
            "kafka_network_requestmetrics_totaltimems", "Milliseconds from request to response.", "request"
        )
        self._requests: dict[int, RequestMetrics] = {}
        # By topic name. Invariant: at most TOPICS_COUNT_MAX + 1 entries. Counts of deleted topics stay in `_deleted`,
        # so that the sum over all topics never moves down.
        self._topics: dict[str, TopicMetrics] = {}
        self._deleted = TopicMetrics()
        for attribute, name, help_text in _TOPIC_COUNTERS:
            self.registry.computed(name, help_text, "counter", ("topic",), self._reader(attribute))

    def topic(self, name: str) -> TopicMetrics:
        """The counters of this topic; whoever counts keeps them. Past the bound, those of all other topics together."""
        metrics = self._topics.get(name)
        if metrics is None:
            if len(self._topics) >= TOPICS_COUNT_MAX:
                name = "_other"
            metrics = self._topics.setdefault(name, TopicMetrics())
        return metrics

    def topic_deleted(self, name: str) -> None:
        """Show this topic no longer; its counts stay in the sums."""
        metrics = self._topics.pop(name, None)
        if metrics is not None:
            for attribute, _, _ in _TOPIC_COUNTERS:
                setattr(self._deleted, attribute, getattr(self._deleted, attribute) + getattr(metrics, attribute))

    def request(self, api_key: ApiKey) -> RequestMetrics:
        """The counters of this API, by Kafka's name for it."""
        metrics = self._requests.get(api_key)
        if metrics is None:
            metrics = self._requests[api_key] = RequestMetrics(self, APIS[api_key].name)
        return metrics

    def _reader(self, attribute: str) -> Callable[[], Iterator[tuple[tuple[str, ...], float]]]:
        def read() -> Iterator[tuple[tuple[str, ...], float]]:
            yield ("",), sum(getattr(m, attribute) for m in self._topics.values()) + getattr(self._deleted, attribute)
            for name, metrics in list(self._topics.items()):
                yield (name,), getattr(metrics, attribute)

        return read
