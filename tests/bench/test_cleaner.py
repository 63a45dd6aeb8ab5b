"""The page section of bench/cleaner.py: rounds of several runs, joined or put in the place of older ones."""

from pathlib import Path

from bench.cleaner import SECTION, joined, read_rounds, table
from bench.load.report import Measured, replace_section


def rounds(began: str, *figures: tuple[int, str, float]) -> list[Measured]:
    return [
        Measured(f"{map_mb} MB", broker, 0, {"p99 meanwhile over idle": value}, began)
        for map_mb, broker, value in figures
    ]


def write(page: Path, measured: list[Measured]) -> None:
    replace_section(page, SECTION, "The log cleaner", table(measured, 2_000_000_000))


def test_rounds_are_added_or_take_the_place_of_older_ones(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    first = rounds("at eight", (64, "millstream", 1.5), (64, "kafka", 2), (32, "millstream", 3), (32, "kafka", 2))
    write(page, joined([], first, add=False))
    assert read_rounds(page) == joined([], first, add=False)

    write(page, joined(read_rounds(page), rounds("at nine", (32, "millstream", 1.0), (32, "kafka", 2)), add=True))
    assert "| 32 MB | p99 meanwhile over idle | 2 | 2 | 1.00x | <= 2 | yes | 2 and 2 |" in page.read_text()
    assert [each.round for each in read_rounds(page)] == [0, 0, 0, 1, 0, 1]

    write(page, joined(read_rounds(page), rounds("at ten", (32, "millstream", 2.5)), add=False))
    shown = page.read_text()
    assert "| 32 MB | p99 meanwhile over idle | 2.5 |  |  | <= 2 | **no** | 1 and 0 |" in shown
    assert "| 64 MB | p99 meanwhile over idle | 1.5 | 2 | 0.75x | <= 2 | yes | 1 and 1 |" in shown
    assert {each.run for each in read_rounds(page)} == {"at eight", "at ten"}
