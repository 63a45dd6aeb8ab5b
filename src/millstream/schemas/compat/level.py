"""The seven compatibility levels of Confluent's registry."""

from __future__ import annotations

from enum import StrEnum


class Level(StrEnum):
    """What a new version owes to earlier ones; the names are those of the REST interface.

    BACKWARD: the new schema reads what earlier ones wrote. FORWARD: earlier ones read what the new one writes. FULL:
    both. Plain levels look at the latest version only, TRANSITIVE ones at every version.
    """

    NONE = "NONE"
    BACKWARD = "BACKWARD"
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FORWARD = "FORWARD"
    FORWARD_TRANSITIVE = "FORWARD_TRANSITIVE"
    FULL = "FULL"
    FULL_TRANSITIVE = "FULL_TRANSITIVE"

    @property
    def is_transitive(self) -> bool:
        """Whether every earlier version counts, not only the latest."""
        return self.endswith("_TRANSITIVE")

    @property
    def is_backward(self) -> bool:
        """Whether the new schema must read what earlier ones wrote."""
        return self.startswith(("BACKWARD", "FULL"))

    @property
    def is_forward(self) -> bool:
        """Whether earlier schemas must read what the new one writes."""
        return self.startswith(("FORWARD", "FULL"))
