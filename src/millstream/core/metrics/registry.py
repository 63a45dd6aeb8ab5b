"""The registry: families of metrics by name, each with one child per set of label values.

    registry = Registry()
    bytes_in = registry.counter("kafka_server_brokertopicmetrics_bytesin_total", "Bytes appended.", "topic")
    flights = bytes_in.labels("flights")       # once per topic, kept by whoever counts
    flights.value += 4096                      # per request: one attribute, no call, no lookup

A gauge may be read when somebody asks (`registry.read_gauge`), and a whole family may come from what the
process already holds (`registry.computed`), so that 20,000 partitions cost nothing until `/metrics` is scraped.
Children are bounded per family: a label value beyond the bound is counted in one child named `_other`, because label
values come from clients. Owned by one event loop; nothing locks.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Generic, Literal, NamedTuple, TypeVar

Kind = Literal["counter", "gauge", "summary"]

CHILDREN_COUNT_MAX: Final = 10_000  # children of one family
OTHER: Final = "_other"  # the child that counts for every label value beyond the bound

# A Summary sorts values into buckets an eighth of an octave wide or narrower, so a quantile is off by 12.5 % at most.
_SUB_BUCKET_BITS: Final = 3
_SUB_BUCKETS: Final = 1 << _SUB_BUCKET_BITS
_VALUE_BITS_MAX: Final = 40  # in microseconds: 12 days
_BUCKET_COUNT: Final = (_VALUE_BITS_MAX - _SUB_BUCKET_BITS + 1) * _SUB_BUCKETS
QUANTILES: Final = (0.5, 0.75, 0.95, 0.98, 0.99, 0.999)  # the ones Kafka's exporter gives
WINDOW_MS: Final = 60_000  # quantiles are those of the last one to two windows

assert _BUCKET_COUNT == 304, _BUCKET_COUNT


class Sample(NamedTuple):
    """One line of the text: `name` with its suffix, labels in order, the value."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


class Counter:
    """Moves up only; whoever counts adds to `value`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Gauge:
    """Moves up and down; whoever measures sets `value`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Summary:
    """Count and sum of all values since the start, and quantiles of the last one to two minutes.

    Values are whole microseconds (or any whole unit below 2**40). `observe` allocates nothing.
    """

    __slots__ = ("_current", "_previous", "_window_ends_ms", "count", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        # Values per bucket: in this window, and in the one before. Both are zeros when nothing was observed lately.
        self._current = array("Q", bytes(8 * _BUCKET_COUNT))
        self._previous = array("Q", bytes(8 * _BUCKET_COUNT))
        self._window_ends_ms = 0

    def observe(self, value: int) -> None:
        """Count one value; negative ones (a clock that stepped back) count as 0, huge ones as the greatest."""
        if value < 0:
            value = 0
        self.count += 1
        self.total += value
        if value < _SUB_BUCKETS:
            self._current[value] += 1
            return
        shift = value.bit_length() - _SUB_BUCKET_BITS - 1
        index = (shift << _SUB_BUCKET_BITS) + (value >> shift)
        self._current[index if index < _BUCKET_COUNT else _BUCKET_COUNT - 1] += 1

    def quantile(self, share: float) -> float:
        """The value that `share` of the recent ones do not pass: the upper end of its bucket; nan if there are none."""
        counts = [before + now for before, now in zip(self._previous, self._current, strict=True)]
        rank = share * sum(counts)
        if not rank:
            return float("nan")
        seen = 0
        for index, count in enumerate(counts):
            seen += count
            if count and seen >= rank:
                return float(_bucket_top(index))
        raise AssertionError(f"rank {rank} lies beyond {seen} values")

    def roll(self, now_ms: int) -> None:
        """Let the quantiles forget what is older than two windows; called before they are read."""
        if now_ms < self._window_ends_ms:
            return
        stale = now_ms >= self._window_ends_ms + WINDOW_MS
        self._previous = array("Q", bytes(8 * _BUCKET_COUNT)) if stale and self._window_ends_ms else self._current
        self._current = array("Q", bytes(8 * _BUCKET_COUNT))
        self._window_ends_ms = now_ms + WINDOW_MS


def _bucket_top(index: int) -> int:
    """The greatest value that `observe` counts in this bucket."""
    if index < 2 * _SUB_BUCKETS:
        return index
    shift = (index >> _SUB_BUCKET_BITS) - 1
    return ((index - (shift << _SUB_BUCKET_BITS) + 1) << shift) - 1


Child = TypeVar("Child", Counter, Gauge, Summary)


class Family(Generic[Child]):
    """Every child of one name. `labels` gives the child of these label values, made on first use."""

    __slots__ = ("_children", "_make", "help", "kind", "label_names", "name")

    def __init__(self, name: str, help_text: str, kind: Kind, label_names: tuple[str, ...], make: type[Child]) -> None:
        self.name = name
        self.help = help_text
        self.kind: Kind = kind
        self.label_names = label_names
        self._make: type[Child] = make
        # Invariant: at most CHILDREN_COUNT_MAX + 1 entries.
        self._children: dict[tuple[str, ...], Child] = {}

    def labels(self, *values: str) -> Child:
        """Return the child of these label values, in the order of the names; past the bound the shared `_other`."""
        child = self._children.get(values)
        if child is None:
            assert len(values) == len(self.label_names), f"{self.name}: {values} for {self.label_names}"
            if len(self._children) >= CHILDREN_COUNT_MAX:
                values = (OTHER,) * len(self.label_names)
                child = self._children.get(values)
            if child is None:
                child = self._children[values] = self._make()
        return child

    def remove(self, *values: str) -> None:
        """Forget a child, where it was ever made: its topic is gone."""
        self._children.pop(values, None)

    def children(self) -> Mapping[tuple[str, ...], Child]:
        """Every child by its label values."""
        return self._children


class ComputedFamily(NamedTuple):
    """A family whose values come from a function at the time of the scrape."""

    name: str
    help: str
    kind: Kind
    label_names: tuple[str, ...]
    read: Callable[[], Iterable[tuple[tuple[str, ...], float]]]


AnyFamily = Family[Counter] | Family[Gauge] | Family[Summary] | ComputedFamily


class Registry:
    """All families of one process, in the order they were registered."""

    def __init__(self) -> None:
        self._families: dict[str, AnyFamily] = {}

    def counter(self, name: str, help_text: str, *label_names: str) -> Family[Counter]:
        """Register a family of counters; names end in `_total`."""
        return self._add(Family(name, help_text, "counter", label_names, Counter))

    def gauge(self, name: str, help_text: str, *label_names: str) -> Family[Gauge]:
        """Register a family of gauges that are set."""
        return self._add(Family(name, help_text, "gauge", label_names, Gauge))

    def read_gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Register one gauge without labels that is read when scraped."""
        self.computed(name, help_text, "gauge", (), lambda: (((), read()),))

    def summary(self, name: str, help_text: str, *label_names: str) -> Family[Summary]:
        """Register a family of summaries."""
        return self._add(Family(name, help_text, "summary", label_names, Summary))

    def computed(
        self,
        name: str,
        help_text: str,
        kind: Kind,
        label_names: tuple[str, ...],
        read: Callable[[], Iterable[tuple[tuple[str, ...], float]]],
    ) -> None:
        """Register a family whose (label values, value) pairs come from `read` at the time of the scrape."""
        self._add(ComputedFamily(name, help_text, kind, label_names, read))

    def families(self) -> Iterable[AnyFamily]:
        """Every family, in the order of registration."""
        return self._families.values()

    def value(self, name: str, *label_values: str) -> float:
        """Return one value by name and label values, as a scrape would show it (a summary: its count); 0 if absent."""
        family = self._families[name]
        if isinstance(family, ComputedFamily):
            return next((value for values, value in family.read() if values == label_values), 0)
        child = family.children().get(label_values)
        if child is None:
            return 0
        return child.count if isinstance(child, Summary) else child.value

    def _add(self, family: _F) -> _F:
        assert family.name not in self._families, f"{family.name} is registered twice"
        self._families[family.name] = family
        return family


_F = TypeVar("_F", bound=AnyFamily)
