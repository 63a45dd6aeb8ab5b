"""What benchmarks measure: a figure, a target, numbers as they are shown, and sections of docs/performance.md."""

import dataclasses
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Measured:
    """One round of one row on one broker."""

    row: str
    broker: str
    round: int
    figures: Mapping[str, float]
    # When the run it belongs to began; "" while that goes on.
    run: str = ""


@dataclasses.dataclass(frozen=True)
class Target:
    """What a figure must reach: a ratio Millstream / Kafka, or an absolute value of Millstream's."""

    figure: str
    comparison: str
    value: float
    absolute: bool = False

    def met(self, value: float) -> bool:
        """Whether a median (or a ratio of medians) reaches it."""
        return value >= self.value if self.comparison == ">=" else value <= self.value

    def __str__(self) -> str:
        return f"{self.comparison} {self.value:g}{'' if self.absolute else 'x'}"


def number(value: float) -> str:
    """Three digits that count, thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def brief(figures: Mapping[str, float]) -> str:
    """One line of a round."""
    return "   ".join(f"{number(value)} {name}" for name, value in figures.items())


def table_row(cells: Sequence[str]) -> str:
    """A line of a table of Markdown."""
    return f"| {' | '.join(cells)} |"


def cells_under(lines: Sequence[str], heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head; none where there is no such heading."""
    found: list[list[str]] = []
    begun = False
    for line in lines[lines.index(heading) + 1 :] if heading in lines else ():
        if line.startswith("|"):
            begun = True
            found.append([cell.strip() for cell in line.strip("|").split(" | ")])
        elif begun:
            break
    return found[2:]


def figures_in(text: str) -> dict[str, float]:
    """What `brief` wrote, with the digits that it showed."""
    found = {}
    for part in text.split("   "):
        value, _, name = part.partition(" ")
        found[name] = float(value.replace(",", ""))
    return found


def machine() -> str:
    """Processor, cores, memory, kernel and versions."""
    cpu = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    java = "no java"
    if shutil.which("java"):
        java = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr.splitlines()[0]
    return (
        f"{cpu}, {os.cpu_count()} cores, {memory_gb:.0f} GB, Linux {platform.release()}, "
        f"Python {sys.version.split()[0]}, {java}"
    )


def replace_section(path: Path, name: str, title: str, lines: Sequence[str]) -> None:
    """Put a section of another benchmark's own into the page, at its place if it has one; the rest stays."""
    begin, end = _marks(name)
    section = "\n".join([begin, f"## {title}", "", *lines, end])
    page = path.read_text() if path.exists() else "# Performance\n"
    found = sections_of(page)
    path.write_text(page.replace(found[name], section) if name in found else f"{page.rstrip()}\n\n{section}\n")


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- section: {name} -->", f"<!-- end of section: {name} -->"


def sections_of(page: str) -> dict[str, str]:
    """Return the sections that benchmarks put into the page, by name, marks included."""
    found = {}
    for line in page.splitlines():
        if line.startswith("<!-- section: "):
            name = line.removeprefix("<!-- section: ").removesuffix(" -->")
            begin, end = _marks(name)
            start = page.index(begin)
            found[name] = page[start : page.index(end, start) + len(end)]
    return found
