"""The page of bench/broker.py: tables, rounds and commands, and of which run each row is.

A run may measure some rows only: they take the place of those rows on the page, and the others stay with the run they
were measured in. The page is its own record, so it is read back before it is written: figures of older runs have the
digits that were shown.
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.load.report import Measured, Target, brief, cells_under, figures_in, number, sections_of, table_row

RUNS, LOADS, ROUNDS = "## Runs", "Load, by row:", "## Every round"
HEAD = ("work", "figure", "Millstream", "Kafka", "ratio", "target", "met", "run")


@dataclasses.dataclass(frozen=True)
class Run:
    """One call of the benchmark."""

    when: str
    took: str
    how: str
    machine: str


@dataclasses.dataclass
class Page:
    """What was measured, with how it was run. Runs go by when they began."""

    rows: Mapping[str, tuple[str, tuple[Target, ...]]]
    measured: Sequence[Measured]
    brokers: Mapping[str, str]
    loads: Mapping[str, str]
    runs: Sequence[Run]

    def over(self, older: "Page") -> "Page":
        """Return a page with these rows, and those of an older page that were not measured again."""
        again = {each.row for each in self.measured}
        kept = [each for each in older.measured if each.row not in again and each.row in self.rows]
        measured = [each for row in self.rows for each in (*kept, *self.measured) if each.row == row]
        loads = {**older.loads, **self.loads}
        held = {each.run for each in measured}
        runs = {each.when: each for each in (*older.runs, *self.runs) if each.when in held}
        return Page(
            self.rows,
            measured,
            {**older.brokers, **self.brokers},
            {row: loads[row] for row in self.rows if row in loads},
            [runs[when] for when in sorted(runs)],
        )

    def lines(self) -> list[tuple[str, ...]]:
        """The columns of HEAD: medians over the rounds."""
        found = []
        for row, (title, targets) in self.rows.items():
            rounds = [measured for measured in self.measured if measured.row == row]
            wanted = {target.figure: target for target in targets}
            for figure in rounds[0].figures if rounds else ():
                ours, theirs = (_median(rounds, broker, figure) for broker in ("millstream", "kafka"))
                ratio = ours / theirs if ours is not None and theirs else None
                target = wanted.get(figure)
                judged = ours if target and target.absolute else ratio
                met = "" if target is None or judged is None else "yes" if target.met(judged) else "**no**"
                shown = [number(value) if value is not None else "" for value in (ours, theirs)]
                ratio_shown = f"{ratio:.2f}x" if ratio is not None else ""
                run = self._run_number(rounds[0].run)
                found.append((title, figure, *shown, ratio_shown, str(target or ""), met, run))
        return found

    def _run_number(self, when: str) -> str:
        return str([each.when for each in self.runs].index(when) + 1)

    def table(self) -> str:
        """The medians, aligned."""
        lines = [HEAD, *self.lines()]
        widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
        )

    def markdown(self) -> str:
        """The page."""
        lines = self.lines()
        out = [
            "# Performance",
            "",
            "Written by `python -m bench.broker --write-doc docs/performance.md` (`make bench`): Millstream and Apache",
            "Kafka 4.3 on the same machine in the same run, in turn. Medians of the rounds below; a ratio is",
            "Millstream's figure over Kafka's. How each row is measured stands in `bench/broker.py`. A run may measure",
            "some rows again and leave the others as they are: the last column says of which run a row is.",
            "",
            table_row(HEAD),
            "|---|---|--:|--:|--:|--:|---|--:|",
            *(table_row(line) for line in lines),
            "",
            RUNS,
            "",
            table_row(("run", "began", "took", "measured", "machine")),
            "|--:|---|---|---|---|",
            *(
                table_row((str(index), run.when, run.took, run.how, run.machine))
                for index, run in enumerate(self.runs, 1)
            ),
            "",
            "## What falls short",
            "",
        ]
        short = [line for line in lines if line[6] == "**no**"]
        out += [f"- {line[0]}: {line[1]} {line[2]} ({line[4] or 'no ratio'}), target {line[5]}." for line in short]
        out += [] if short else ["Nothing: every target was met."]
        out += ["", "## Command lines", ""]
        for name, command in self.brokers.items():
            out += [f"{name}:", "", "```sh", command.replace(str(Path.home()), "~"), "```", ""]
        out += [LOADS, "", "```sh"]
        out += [f"# {row}\n{command}" for row, command in self.loads.items()]
        out += ["```", "", ROUNDS, "", "| row | broker | round | run | figures |", "|---|---|--:|--:|---|"]
        out += [
            table_row((m.row, m.broker, str(m.round + 1), self._run_number(m.run), brief(m.figures)))
            for m in self.measured
        ]
        return "\n".join(out) + "\n"


def read_page(path: Path, rows: Mapping[str, tuple[str, tuple[Target, ...]]]) -> Page:
    """Return what stands on the page, nothing where there is none."""
    lines = path.read_text().splitlines() if path.exists() else []
    runs = [Run(*cells[1:]) for cells in cells_under(lines, RUNS)]
    measured = [
        Measured(row, broker, int(count) - 1, figures_in(figures), runs[int(run) - 1].when)
        for row, broker, count, run, figures in cells_under(lines, ROUNDS)
    ]
    loads = lines[lines.index(LOADS) + 3 :] if LOADS in lines else []
    loads = loads[: loads.index("```")] if loads else []
    brokers = {name: lines[lines.index(f"{name}:") + 3] for name in ("millstream", "kafka") if f"{name}:" in lines}
    by_row = {row.removeprefix("# "): command for row, command in zip(loads[::2], loads[1::2], strict=True)}
    return Page(rows, measured, brokers, by_row, runs)


def write_page(path: Path, page: Page) -> None:
    """Write the page over what it says now; the sections of other benchmarks stay behind it."""
    sections = sections_of(path.read_text()) if path.exists() else {}
    merged = page.over(read_page(path, page.rows))
    path.write_text("\n".join([merged.markdown().rstrip(), "", *(f"{each}\n" for each in sections.values())]))


def _median(rounds: Sequence[Measured], broker: str, figure: str) -> float | None:
    values = [each.figures[figure] for each in rounds if each.broker == broker and figure in each.figures]
    return statistics.median(values) if values else None
