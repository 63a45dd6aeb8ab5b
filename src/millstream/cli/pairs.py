"""`name=value`, as options like --set take it; for the commands and for the light path alike."""

from __future__ import annotations

from collections.abc import Sequence


def parse_pairs(texts: Sequence[str]) -> dict[str, str]:
    """Read `name=value` texts; of a name given twice the last holds. Raises ValueError."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"{text!r} is no setting: write name=value")
        pairs[name.strip()] = value.strip()
    return pairs
