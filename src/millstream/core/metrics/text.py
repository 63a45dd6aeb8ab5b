"""The Prometheus text format, version 0.0.4: what `/metrics` answers.

# HELP name what it means
# TYPE name counter
name{label="value"} 1
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Final

from millstream.core.metrics.registry import (
    QUANTILES,
    AnyFamily,
    ComputedFamily,
    Counter,
    Gauge,
    Registry,
    Sample,
    Summary,
)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
LINES_PER_PIECE: Final = 256  # well under a millisecond of work
_US_PER_MS: Final = 1000
_SAMPLE: Final = re.compile(r"(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL: Final = re.compile(r'(?P<name>[A-Za-z_]\w*)="(?P<value>(?:[^"\\]|\\.)*)"')
_UNESCAPED: Final = {r"\\": "\\", r"\"": '"', r"\n": "\n"}

Wanted = Callable[[Sample], bool]


def render(registry: Registry, now_ms: int, *, wanted: Wanted = lambda _sample: True) -> str:
    """Return all metrics of the registry as text, or those that are wanted; `now_ms` moves the summaries' windows."""
    return "".join(render_pieces(registry, now_ms, wanted=wanted))


def samples_of(text: str) -> Iterator[Sample]:
    """Yield what a text says, as `render` wrote it; lines that are none of its own are passed over."""
    for line in text.splitlines():
        found = _SAMPLE.fullmatch(line)
        if found is None:
            continue
        labels = tuple(
            (one["name"], re.sub(r"\\.", lambda escape: _UNESCAPED.get(escape[0], escape[0]), one["value"]))
            for one in _LABEL.finditer(found["labels"] or "")
        )
        try:
            # A whole number is shown as one, also where it came from here.
            value = float(found["value"]) if not found["value"].isdecimal() else int(found["value"])
        except ValueError:
            continue
        yield Sample(found["name"], labels, value)


def render_pieces(registry: Registry, now_ms: int, *, wanted: Wanted = lambda _sample: True) -> Iterator[str]:
    """Yield the same text in pieces of at most LINES_PER_PIECE lines, so that an event loop can run between them."""
    lines: list[str] = []
    for family in registry.families():
        is_first = True
        for sample in _samples(family, now_ms):
            if not wanted(sample):
                continue
            if is_first:
                lines.append(f"# HELP {family.name} {_escape_help(family.help)}\n")
                lines.append(f"# TYPE {family.name} {family.kind}\n")
                is_first = False
            lines.append(_line(sample))
            if len(lines) >= LINES_PER_PIECE:
                yield "".join(lines)
                lines.clear()
    yield "".join(lines)


def _samples(family: AnyFamily, now_ms: int) -> Iterator[Sample]:
    names = family.label_names
    if isinstance(family, ComputedFamily):
        for values, value in family.read():
            yield Sample(family.name, tuple(zip(names, values, strict=True)), value)
        return
    # A copy: the loop may run between two pieces, and add children.
    children: list[tuple[tuple[str, ...], Counter | Gauge | Summary]] = list(family.children().items())
    for values, child in children:
        labels = tuple(zip(names, values, strict=True))
        if isinstance(child, Summary):
            yield from _summary_samples(family.name, labels, child, now_ms)
        else:
            yield Sample(family.name, labels, child.value)


def _summary_samples(name: str, labels: tuple[tuple[str, str], ...], summary: Summary, now_ms: int) -> Iterator[Sample]:
    """Observed in microseconds, shown in milliseconds, as Kafka's ...TimeMs are."""
    for share in QUANTILES:
        yield Sample(name, (*labels, ("quantile", str(share))), summary.quantile(share) / _US_PER_MS)
    yield Sample(f"{name}_sum", labels, summary.total / _US_PER_MS)
    yield Sample(f"{name}_count", labels, summary.count)
    # Rolled behind the reading, so that a scrape always sees the values that came since the one before.
    summary.roll(now_ms)


def _line(sample: Sample) -> str:
    # An empty label is an absent one to Prometheus, so a family may hold its sum beside its parts.
    labels = ",".join(f'{name}="{_escape_label(value)}"' for name, value in sample.labels if value)
    return (
        f"{sample.name}{{{labels}}} {_number(sample.value)}\n" if labels else f"{sample.name} {_number(sample.value)}\n"
    )


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)


def _escape_label(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
