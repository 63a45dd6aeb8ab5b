"""What a terminal shows while a load runs, line by line as a person sees it."""

from __future__ import annotations

import io
import re

from rich.console import Console

from millstream.cli.load_progress import LoadProgress
from millstream.hadoop_loader.driver.observer import Phase
from millstream.hadoop_loader.driver.progress import RunProgress
from millstream.hadoop_loader.engines import AttemptFailed, AttemptProgressed
from millstream.hadoop_loader.splits import OffsetRange, Progress, Split

MB = 2**20


def seen(progress: LoadProgress) -> list[str]:
    """The lines of the display, on a terminal of 120 columns."""
    console = Console(file=io.StringIO(), force_terminal=True, width=120, record=True, color_system=None)
    console.print(progress.display())
    return [line.rstrip() for line in console.export_text().splitlines()]


def numbers(progress: LoadProgress) -> dict[str, list[str]]:
    """What stands behind each partition's bar."""
    found = (re.match(r"(clicks-\d+)[ ━╸╺]*(.*)", line) for line in seen(progress))
    return {one[1]: one[2].split() for one in found if one is not None}


def test_a_run_as_a_person_sees_it() -> None:
    now_s = 100.0
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=120)

    def told(partition: int, next_offset: int, rows: int, size_bytes: int) -> None:
        progress.handle_progressed(
            AttemptProgressed(0, 0, (Progress("clicks", partition, next_offset, rows, size_bytes),))
        )

    with LoadProgress(console=terminal, monotonic=lambda: now_s) as progress:
        progress.handle_phase(Phase.LOOKING)
        assert seen(progress)[0].endswith("looking what the topics hold")
        progress.handle_phase(Phase.LOADING)
        ranges = tuple(
            OffsetRange("clicks", "id", number, -1, 0, 40_000 if number < 2 else 10_000) for number in range(14)
        )
        progress.handle_planned([Split(0, ranges)], 2)
        first = seen(progress)
        assert len([line for line in first if line.startswith("clicks-")]) == 12
        assert first[12:] == [
            "and 2 more partitions",
            "0 records, 0 B · 0 records/s, 0 B/s · 0 % · 0 of 1 split on 2 workers",
        ]

        now_s += 2
        told(0, 20_000, 4_000, 8 * MB)
        told(1, 4_000, 1_000, MB)
        shown = numbers(progress)
        assert shown["clicks-0"] == ["50", "%", "4,000", "2,000", "records/s", "4.0", "MB/s"]
        assert shown["clicks-1"] == ["10", "%", "1,000", "500", "records/s", "512.0", "kB/s"]
        assert seen(progress)[-1] == (
            "5,000 records, 9.0 MB · 2,500 records/s, 4.5 MB/s · 12 % · 0 of 1 split on 2 workers · 15 s left"
        )

        # One that stands still is seen to: its rate is that of the last seconds.
        for _ in range(8):
            now_s += 1
            told(1, 8_000, 100, MB)
            shown = numbers(progress)
        assert shown["clicks-0"] == ["50", "%", "4,000"]
        assert shown["clicks-1"] == ["20", "%", "1,800", "100", "records/s", "1.0", "MB/s"]

        progress.handle_failed(AttemptFailed(0, 0, "[orders] was away", "OSError", True))
        shown = numbers(progress)
        assert shown["clicks-1"] == ["0", "%", "0"]
        progress.handle_failed(AttemptFailed(0, 1, "[orders] was away", "OSError", True))
        progress.handle_note("the table of clicks has a new column")

    # What was noted stays on the screen, with its brackets; the display is erased.
    assert "split 0, attempt 1: [orders] was away" in screen.getvalue()
    assert "attempt 2" not in screen.getvalue(), "what was said is not said for each split"
    assert "the table of clicks has a new column" in screen.getvalue()
    assert screen.getvalue().rstrip("\n").endswith(("\x1b[2K", "\x1b[?25h"))


def test_a_split_that_is_divided_is_shown_by_its_parts() -> None:
    topics = [OffsetRange(name, name, 0, -1, 0, 1_000) for name in ("clicks", "orders")]
    with LoadProgress(shown=False, monotonic=lambda: 0.0) as progress:
        progress.handle_phase(Phase.LOADING)
        progress.handle_planned([Split(0, tuple(topics))], 2)
        progress.handle_failed(AttemptFailed(0, 0, "it broke", "OSError", True))

        progress.handle_divided(0, [Split(1, (topics[0],)), Split(2, (topics[1],))])
        progress.handle_progressed(AttemptProgressed(2, 1, (Progress("orders", 0, 250, 250, MB),)))

        assert "250 records, 1.0 MB" in seen(progress)[-1]
        assert "0 of 2 splits" in seen(progress)[-1]


def test_the_display_hears_what_its_counts_are_made_of() -> None:
    counted = {name for name in vars(RunProgress) if name.startswith("handle_")}
    assert counted <= vars(LoadProgress).keys()
