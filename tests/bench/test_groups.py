"""What bench/groups.py writes is what it reads back, and rows that a run leaves out stay."""

from pathlib import Path

from bench.groups import SECTION, joined, read_rounds, section
from bench.load.report import Measured, replace_section


def rounds(row: str, run: str, seconds: float) -> list[Measured]:
    return [Measured(row, broker, 0, {"seconds": seconds}, run) for broker in ("millstream", "kafka")]


def test_a_run_of_one_row_leaves_the_others_on_the_page(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("# Performance\n")
    older = [*rounds("join", "2026-11-20 10:00 UTC", 1.0), *rounds("fetch", "2026-11-20 10:00 UTC", 2.0)]
    replace_section(page, SECTION, "Groups", section(older)[0])
    assert read_rounds(page) == older
    newer = rounds("join", "2026-11-21 17:00 UTC", 3.0)
    both = joined(read_rounds(page), newer)
    assert both == [*newer, *older[2:]]
    replace_section(page, SECTION, "Groups", section(both)[0])
    assert read_rounds(page) == both
    assert page.read_text().count("## Groups") == 1
