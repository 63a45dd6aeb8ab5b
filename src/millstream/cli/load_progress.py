"""What a terminal shows while a load runs: how far each partition is, rows and megabytes a second, the time left.

Only on a terminal: a log of a scheduled run gets its notes as lines and no more. The display stands below what is
printed meanwhile, and is gone when the run ends.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from millstream.cli.output import err, note, size_text
from millstream.hadoop_loader.driver.observer import Observer, Phase
from millstream.hadoop_loader.driver.progress import PartitionProgress, RunProgress
from millstream.hadoop_loader.engines.engine import AttemptFailed, AttemptFinished, AttemptProgressed
from millstream.hadoop_loader.splits import Split

PARTITIONS_SHOWN: Final = 12
_BAR_WIDTH: Final = 24
_REFRESH_INTERVAL_S: Final = 0.2
_SECONDS_PER_MINUTE: Final = 60


class LoadProgress(Observer):
    """Shows a run on standard error, where that is a terminal; notes are printed either way."""

    def __init__(self, *, shown: bool = True) -> None:
        console = err()
        self._progress = RunProgress()
        self._spinner = Spinner("dots")
        self._live = (
            Live(console=console, transient=True, auto_refresh=False) if shown and console.is_terminal else None
        )
        self._refresh_at = 0.0
        # Notes that were printed while the run went on.
        self.told: set[str] = set()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def handle_phase(self, phase: Phase) -> None:
        self._progress.handle_phase(phase)
        self._refresh(at_once=True)

    def handle_planned(self, splits: Sequence[Split], workers: int) -> None:
        self._progress.handle_planned(splits, workers)
        self._refresh(at_once=True)

    def handle_progressed(self, event: AttemptProgressed) -> None:
        self._progress.handle_progressed(event)
        self._refresh()

    def handle_finished(self, event: AttemptFinished) -> None:
        self._progress.handle_finished(event)
        self._refresh()

    def handle_failed(self, event: AttemptFailed) -> None:
        self._progress.handle_failed(event)
        self.handle_note(f"split {event.split}, attempt {event.attempt + 1}: {event.error}")

    def handle_note(self, sentence: str) -> None:
        self.told.add(sentence)
        if self._live is None:
            note(sentence)
        else:
            self._live.console.print(f"[dim]{escape(sentence)}[/dim]", highlight=False)

    def handle_waiting(self) -> None:
        self._refresh()

    def _refresh(self, *, at_once: bool = False) -> None:
        if self._live is None or not (at_once or time.monotonic() >= self._refresh_at):
            return
        self._refresh_at = time.monotonic() + _REFRESH_INTERVAL_S
        self._live.update(_shown(self._progress, self._spinner), refresh=True)


def _shown(progress: RunProgress, spinner: Spinner) -> Group | Spinner:
    if progress.phase is not Phase.LOADING or not progress.partitions:
        spinner.update(text=Text(progress.phase.value, style="dim"))
        return spinner
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for _ in range(3):
        table.add_column()
    table.add_column(justify="right")
    shown = _most_telling(list(progress.partitions.values()))
    for one in shown:
        table.add_row(
            escape(f"{one.topic}-{one.partition}"),
            ProgressBar(total=max(one.offsets, 1), completed=one.offsets_read, width=_BAR_WIDTH),
            f"{_share(one.offsets_read, one.offsets)}",
            f"{one.rows:,}",
        )
    hidden = len(progress.partitions) - len(shown)
    lines = [table]
    if hidden:
        lines.append(Text(f"and {hidden:,} more partitions", style="dim"))  # type: ignore[arg-type]
    return Group(*lines, _summary(progress))


def _most_telling(partitions: list[PartitionProgress]) -> list[PartitionProgress]:
    """Those with the most left to read, in the order of their names."""
    most = sorted(partitions, key=lambda one: one.offsets_read - one.offsets)[:PARTITIONS_SHOWN]
    return sorted(most, key=lambda one: (one.topic, one.partition))


def _summary(progress: RunProgress) -> Text:
    seconds = max(progress.seconds, 1e-6)
    remaining = progress.remaining_s
    return Text(
        f"{progress.rows:,} records, {size_text(progress.bytes)} · {progress.rows / seconds:,.0f} records/s, "
        f"{size_text(progress.bytes / seconds)}/s · {_share(progress.offsets_read, progress.offsets)}"
        f" · {progress.splits_done} of {progress.splits} splits on {progress.workers} workers"
        + ("" if remaining is None else f" · {_duration(remaining)} left")
    )


def _share(read: int, offsets: int) -> str:
    return f"{100 * read / offsets:.0f} %" if offsets else "100 %"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < _SECONDS_PER_MINUTE:
        return f"{whole} s"
    return f"{whole // _SECONDS_PER_MINUTE} min {whole % _SECONDS_PER_MINUTE} s"
