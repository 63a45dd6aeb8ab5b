"""What a terminal shows while a load runs: how far each partition is, rows and megabytes a second, the time left.

Only on a terminal: a log of a scheduled run gets its notes as lines and no more. The display stands below what is
printed meanwhile, and is gone when the run ends. A partition's rates are those of the last seconds, so that one that
stands still is seen to; those of the run, and the time left, are means.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from millstream.cli.load_output import counted
from millstream.cli.output import duration_text, err, note, size_text
from millstream.hadoop_loader.driver.observer import Observer, Phase
from millstream.hadoop_loader.driver.progress import PartitionProgress, RunProgress
from millstream.hadoop_loader.engines.engine import AttemptFailed, AttemptFinished, AttemptProgressed
from millstream.hadoop_loader.splits import Split

PARTITIONS_SHOWN: Final = 12
_BAR_WIDTH: Final = 24
_REFRESH_INTERVAL_S: Final = 0.2
_RATES_OVER_S: Final = 5.0
_SAMPLE_INTERVAL_S: Final = 1.0


class LoadProgress(Observer):
    """Shows a run on standard error, where that is a terminal; notes are printed either way."""

    def __init__(
        self,
        *,
        shown: bool = True,
        console: Console | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`console` is that of standard error by default."""
        console = err() if console is None else console
        self._monotonic = monotonic
        self._progress = RunProgress(monotonic=monotonic)
        self._rates = Rates()
        self._spinner = Spinner("dots")
        self._live = (
            Live(console=console, transient=True, auto_refresh=False) if shown and console.is_terminal else None
        )
        self._refresh_at = 0.0
        # Why attempts failed so far.
        self._failures: set[str] = set()
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
        # What is away is away for all splits: said once, the report counts how often.
        if event.error not in self._failures:
            self._failures.add(event.error)
            self.handle_note(f"split {event.split}, attempt {event.attempt + 1}: {event.error}")

    def handle_divided(self, split: int, parts: Sequence[Split]) -> None:
        self._progress.handle_divided(split, parts)

    def handle_note(self, sentence: str) -> None:
        self.told.add(sentence)
        if self._live is None:
            note(sentence)
        else:
            self._live.console.print(f"[dim]{escape(sentence)}[/dim]", highlight=False)

    def handle_waiting(self) -> None:
        self._refresh()

    def display(self) -> RenderableType:
        """What is shown just now."""
        progress, spinner = self._progress, self._spinner
        if progress.phase is not Phase.LOADING or not progress.partitions:
            spinner.update(text=Text(progress.phase.value, style="dim"))
            return spinner
        now_s = self._monotonic()
        self._rates.look(progress.partitions.values(), now_s)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        for _ in range(3):
            table.add_column()
        for _ in range(3):
            table.add_column(justify="right")
        shown = _most_telling(list(progress.partitions.values()))
        for one in shown:
            rows_per_s, bytes_per_s = self._rates.of(one, now_s)
            is_moving = rows_per_s > 0
            table.add_row(
                escape(f"{one.topic}-{one.partition}"),
                ProgressBar(total=max(one.offsets, 1), completed=one.offsets_read, width=_BAR_WIDTH),
                _share(one.offsets_read, one.offsets),
                f"{one.rows:,}",
                f"{rows_per_s:,.0f} records/s" if is_moving else "",
                f"{size_text(bytes_per_s)}/s" if is_moving else "",
            )
        lines: list[RenderableType] = [table]
        hidden = len(progress.partitions) - len(shown)
        if hidden:
            lines.append(Text(f"and {hidden:,} more partitions", style="dim"))
        return Group(*lines, _summary(progress))

    def _refresh(self, *, at_once: bool = False) -> None:
        if self._live is None or not (at_once or self._monotonic() >= self._refresh_at):
            return
        self._refresh_at = self._monotonic() + _REFRESH_INTERVAL_S
        self._live.update(self.display(), refresh=True)


class Rates:
    """Rows and bytes a second of each partition, over the last seconds that it was looked at."""

    def __init__(self) -> None:
        # (when, rows and bytes by partition), oldest first; the oldest is the last one before the window.
        self._samples: deque[tuple[float, dict[tuple[str, int], tuple[int, int]]]] = deque()

    def look(self, partitions: Iterable[PartitionProgress], now_s: float) -> None:
        """Take note of how far partitions are."""
        if self._samples and now_s - self._samples[-1][0] < _SAMPLE_INTERVAL_S:
            return
        self._samples.append((now_s, {(one.topic, one.partition): (one.rows, one.bytes) for one in partitions}))
        while len(self._samples) > 1 and self._samples[1][0] <= now_s - _RATES_OVER_S:
            self._samples.popleft()

    def of(self, one: PartitionProgress, now_s: float) -> tuple[float, float]:
        """Return its rows and bytes a second; none before there is a past, and where an attempt was taken back."""
        since_s, held = self._samples[0]
        rows, size_bytes = held.get((one.topic, one.partition), (0, 0))
        seconds = now_s - since_s
        if seconds <= 0 or one.rows < rows:
            return 0.0, 0.0
        return (one.rows - rows) / seconds, (one.bytes - size_bytes) / seconds


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
        f" · {progress.splits_done} of {counted(progress.splits, 'split')} on {counted(progress.workers, 'worker')}"
        + ("" if remaining is None else f" · {duration_text(remaining)} left")
    )


def _share(read: int, offsets: int) -> str:
    return f"{100 * read / offsets:.0f} %" if offsets else "100 %"
