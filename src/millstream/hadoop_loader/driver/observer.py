"""What a run tells while it runs. A display, metrics and logs are observers; the run itself needs none.

Calls come on the run's thread, in order, and must be quick. What an observer raises ends the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millstream.hadoop_loader.driver.report import LoadReport
    from millstream.hadoop_loader.engines.engine import AttemptFailed, AttemptFinished, AttemptProgressed
    from millstream.hadoop_loader.splits import Split


class Phase(StrEnum):
    """What a run is doing; in this order."""

    OPENING = "opening the destination"
    CLAIMING = "claiming the destination"
    LOOKING = "looking what the topics hold"
    PLANNING = "planning"
    LOADING = "loading"
    COMMITTING = "committing"
    FINISHING = "finishing"


class Observer:
    """Hears what a run does; each of these does nothing until a subclass says otherwise."""

    def handle_phase(self, phase: Phase) -> None:
        """The run begins this."""

    def handle_planned(self, splits: Sequence[Split], workers: int) -> None:
        """These are to be loaded, by so many workers at once."""

    def handle_progressed(self, event: AttemptProgressed) -> None:
        """A running attempt has read so much more."""

    def handle_finished(self, event: AttemptFinished) -> None:
        """An attempt came to its end; the split may still have to run again, for schemas nobody knew."""

    def handle_failed(self, event: AttemptFailed) -> None:
        """An attempt failed; the split runs again, or its topics are given up, or it is divided."""

    def handle_divided(self, split: int, parts: Sequence[Split]) -> None:
        """These run in the place of a split, each for one of its topics."""

    def handle_waiting(self) -> None:
        """Nothing happened for a while; a display may show that time goes by."""

    def handle_note(self, sentence: str) -> None:
        """Something that whoever watches should know: a schema that grew, a topic given up."""

    def handle_report(self, report: LoadReport) -> None:
        """The run has ended."""
