"""The page of bench/broker.py: medians judged, and rows measured again put among those that stay."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from bench.load.page import Page, Run, read_page, write_page
from bench.load.report import Measured, Target, replace_section

ROWS = {"first": ("the first", (Target("x", "<=", 0.4),)), "second": ("the second", ()), "third": ("the third", ())}
FIRST_RUN, SECOND_RUN = "2026-01-01 08:00 UTC", "2026-01-02 09:30 UTC"


def page(when: str, figures: Mapping[str, tuple[float, ...]]) -> Page:
    """What a run measured of these rows: Millstream's rounds, and 4 for Kafka."""
    measured = [
        Measured(row, broker, count, {"x": value, "records/s": 1_234_567.0}, when)
        for row, values in figures.items()
        for count, ours in enumerate(values)
        for broker, value in (("millstream", ours), ("kafka", 4.0))
    ]
    commands = dict.fromkeys(figures, f"python -m load --of {when}")
    brokers = {"millstream": "millstream server", "kafka": "java kafka.Kafka"}
    return Page(ROWS, measured, brokers, commands, [Run(when, "1.0 minutes", "3 rounds", "a machine, 2 cores")])


def test_medians_are_judged() -> None:
    judged = page(FIRST_RUN, {"first": (1, 3, 2)})
    assert judged.lines() == [
        ("the first", "x", "2", "4", "0.50x", "<= 0.4x", "**no**", "1"),
        ("the first", "records/s", "1,234,567", "1,234,567", "1.00x", "", "", "1"),
    ]
    assert "- the first: x 2 (0.50x), target <= 0.4x." in judged.markdown()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    written = page(FIRST_RUN, {"first": (1.25, 3), "third": (0.001,)})
    write_page(path, written)
    assert dataclasses.asdict(read_page(path, ROWS)) == dataclasses.asdict(written)
    text = path.read_text()
    write_page(path, Page(ROWS, [], {}, {}, []))
    assert path.read_text() == text


def test_a_row_measured_again_takes_the_place_of_the_old_one_and_says_of_which_run_it_is(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    write_page(path, page(FIRST_RUN, {"first": (1, 1, 1), "second": (2,)}))
    replace_section(path, "other", "Another benchmark", ["its table"])
    write_page(path, page(SECOND_RUN, {"third": (3,), "first": (0.5,)}))
    merged = read_page(path, ROWS)
    shown = [(line[0], line[2], line[-1]) for line in merged.lines() if line[1] == "x"]
    assert shown == [("the first", "0.5", "2"), ("the second", "2", "1"), ("the third", "3", "2")]
    assert [run.when for run in merged.runs] == [FIRST_RUN, SECOND_RUN]
    assert merged.loads == {
        "first": f"python -m load --of {SECOND_RUN}",
        "second": f"python -m load --of {FIRST_RUN}",
        "third": f"python -m load --of {SECOND_RUN}",
    }
    assert "its table" in path.read_text()


def test_a_run_of_which_no_row_is_left_is_not_told_of(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    write_page(path, page(FIRST_RUN, {"first": (1,)}))
    write_page(path, page(SECOND_RUN, {"first": (2,)}))
    assert FIRST_RUN not in path.read_text()
    assert [line[-1] for line in read_page(path, ROWS).lines()] == ["1", "1"]
