"""What a benchmark run measured, as a table on the terminal and as the page docs/performance.md."""

import dataclasses
import os
import platform
import shutil
import statistics
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


@dataclasses.dataclass
class Page:
    """Everything a run measured, with how it was run."""

    rows: Mapping[str, tuple[str, tuple[Target, ...]]]
    measured: Sequence[Measured]
    brokers: Mapping[str, str]
    loads: Mapping[str, str]
    seconds: float

    def lines(self) -> list[tuple[str, ...]]:
        """Row, figure, Millstream, Kafka, ratio, target, met: medians over the rounds."""
        found = []
        for row, (title, targets) in self.rows.items():
            rounds = [measured for measured in self.measured if measured.row == row]
            wanted = {target.figure: target for target in targets}
            for figure in rounds[0].figures if rounds else ():
                ours, theirs = (self._median(rounds, broker, figure) for broker in ("millstream", "kafka"))
                ratio = ours / theirs if ours is not None and theirs else None
                target = wanted.get(figure)
                judged = ours if target and target.absolute else ratio
                met = "" if target is None or judged is None else "yes" if target.met(judged) else "**no**"
                shown = [number(value) if value is not None else "" for value in (ours, theirs)]
                ratio_shown = f"{ratio:.2f}x" if ratio is not None else ""
                found.append((title, figure, *shown, ratio_shown, str(target or ""), met))
        return found

    def _median(self, rounds: Sequence[Measured], broker: str, figure: str) -> float | None:
        values = [m.figures[figure] for m in rounds if m.broker == broker and figure in m.figures]
        return statistics.median(values) if values else None

    def table(self) -> str:
        """The medians, aligned."""
        lines = [("work", "figure", "Millstream", "Kafka", "ratio", "target", "met"), *self.lines()]
        widths = [max(len(line[column]) for line in lines) for column in range(7)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
        )

    def markdown(self) -> str:
        """The page."""
        out = [
            "# Performance",
            "",
            "Written by `python -m bench.broker --write-doc docs/performance.md` (`make bench`): Millstream and Apache",
            "Kafka 4.3 on the same machine in the same run, in turn. Medians of the rounds below; a ratio is",
            "Millstream's figure over Kafka's. How each row is measured stands in `bench/broker.py`.",
            "",
            f"Machine: {machine()}. The run took {self.seconds / 60:.0f} minutes.",
            "",
            "| work | figure | Millstream | Kafka | ratio | target | met |",
            "|---|---|--:|--:|--:|--:|---|",
        ]
        out += ["| " + " | ".join(line) + " |" for line in self.lines()]
        out += ["", "## What falls short", ""]
        short = [line for line in self.lines() if line[6] == "**no**"]
        out += [f"- {line[0]}: {line[1]} {line[2]} ({line[4] or 'no ratio'}), target {line[5]}." for line in short]
        out += [] if short else ["Nothing: every target was met in this run."]
        out += ["", "## Command lines", ""]
        for name, command in self.brokers.items():
            out += [f"{name}:", "", "```sh", command.replace(str(Path.home()), "~"), "```", ""]
        out += ["Load, by row:", "", "```sh"]
        out += [f"# {row}\n{command}" for row, command in self.loads.items()]
        out += ["```", "", "## Every round", "", "| row | broker | round | figures |", "|---|---|--:|---|"]
        out += [f"| {m.row} | {m.broker} | {m.round + 1} | {brief(m.figures)} |" for m in self.measured]
        return "\n".join(out) + "\n"


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
    found = _sections(page)
    path.write_text(page.replace(found[name], section) if name in found else f"{page.rstrip()}\n\n{section}\n")


def write_page(path: Path, page: str) -> None:
    """Write the page anew; the sections that others put into the old one go behind it."""
    sections = _sections(path.read_text()) if path.exists() else {}
    path.write_text("\n".join([page.rstrip(), "", *(f"{each}\n" for each in sections.values())]))


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- section: {name} -->", f"<!-- end of section: {name} -->"


def _sections(page: str) -> dict[str, str]:
    found = {}
    for line in page.splitlines():
        if line.startswith("<!-- section: "):
            name = line.removeprefix("<!-- section: ").removesuffix(" -->")
            begin, end = _marks(name)
            start = page.index(begin)
            found[name] = page[start : page.index(end, start) + len(end)]
    return found
