"""What `/healthz` says: `ok`, or every reason why this broker needs somebody's attention.

Status 200 and 503, so that a load balancer or a container runtime needs no parser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from millstream.core.broker.http import TEXT, Answer

if TYPE_CHECKING:
    from millstream.core.log import LogDirectory


class Health:
    """Looks at what can go wrong without ending the process; owned by the event loop."""

    def __init__(
        self,
        directories: Sequence[LogDirectory],
        *,
        lag_ms: Callable[[], float],
        lag_threshold_ms: Callable[[], int],
        metadata_problem: Callable[[], str | None],
    ) -> None:
        self._directories = directories
        self._lag_ms = lag_ms
        self._lag_threshold_ms = lag_threshold_ms
        self._metadata_problem = metadata_problem

    def problems(self) -> list[str]:
        """Every reason why the broker is not well; none when it is."""
        found = []
        for directory in self._directories:
            if directory.offline_reason is not None:
                found.append(f"log directory {directory.path} is offline: {directory.offline_reason}")
            elif directory.read_only_reason is not None:
                found.append(f"log directory is read-only: {directory.read_only_reason}")
        lag_ms, threshold_ms = self._lag_ms(), self._lag_threshold_ms()
        if lag_ms >= threshold_ms:
            found.append(
                f"the event loop was {lag_ms:.0f} ms late in the last ten seconds (threshold {threshold_ms} ms)"
            )
        if (problem := self._metadata_problem()) is not None:
            found.append(problem)
        return found

    def answer(self) -> Answer:
        """The answer to GET /healthz."""
        problems = self.problems()
        if not problems:
            return Answer(HTTPStatus.OK, TEXT, ("ok\n",))
        return Answer(HTTPStatus.SERVICE_UNAVAILABLE, TEXT, [f"{problem}\n" for problem in problems])
