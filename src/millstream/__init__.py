"""Millstream carries data from any Kafka client into Hadoop: a Kafka-compatible broker, a loader, stream processing.

Public names are loaded on first use, so that the broker's path never pays for what it does not need.
"""

from __future__ import annotations

from typing import Final

__version__: Final = "0.1.0"
