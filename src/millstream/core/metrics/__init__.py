"""Counters, gauges and summaries of one process, and their Prometheus text.

A hot path pays one attribute increment: `counter.value += n`. Nothing here locks: a registry belongs to one event
loop, and what other threads measure reaches it by the loop.
"""

from millstream.core.metrics.registry import Counter, Family, Gauge, Registry, Sample, Summary
from millstream.core.metrics.text import CONTENT_TYPE, render, render_pieces, samples_of

__all__ = [
    "CONTENT_TYPE",
    "Counter",
    "Family",
    "Gauge",
    "Registry",
    "Sample",
    "Summary",
    "render",
    "render_pieces",
    "samples_of",
]
