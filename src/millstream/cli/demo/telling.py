"""What the demo says: a line for each step as it is done, or one JSON document at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.markup import escape

from millstream.cli.output import err, out, print_json, print_table, size_text


@dataclass
class Step:
    """One step: what it did, in words and in numbers, and how long it took."""

    name: str
    what: str = ""
    seconds: float = 0.0
    records: int | None = None
    size_bytes: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def rate(self) -> str:
        """Records and bytes per second, where there are any."""
        seconds = max(self.seconds, 1e-6)
        parts = []
        if self.records is not None:
            parts.append(f"{self.records / seconds:,.0f} records/s")
        if self.size_bytes is not None:
            parts.append(f"{size_text(self.size_bytes / seconds)}/s")
        return ", ".join(parts)


class Teller:
    """Prints steps as they end; `as_json` keeps them for the end."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._steps: list[Step] = []
        self._results: dict[str, Any] = {}
        if not as_json:
            out().print("[bold]Millstream demo[/bold]: the flights that left New York in 2013, from Kafka to Hadoop\n")

    @contextmanager
    def step(self, name: str, doing: str) -> Iterator[Step]:
        """Time a step; the block says in `what` what it did."""
        step = Step(name)
        started = time.monotonic()
        if self._as_json:
            yield step
        else:
            with err().status(doing):
                yield step
        step.seconds = time.monotonic() - started
        self._steps.append(step)
        if not self._as_json:
            rate = f"  [dim]{step.rate}[/dim]" if step.rate else ""
            out().print(
                f"[bold]{name:<9}[/bold] {step.seconds:6.2f} s  {escape(step.what)}{rate}",
                highlight=False,
                soft_wrap=True,
            )
            for sentence in step.notes:
                out().print(f"{'':<21}[dim]{escape(sentence)}[/dim]", highlight=False, soft_wrap=True)

    def table(self, name: str, title: str, columns: list[str], rows: list[list[Any]]) -> None:
        """Show a result."""
        self._results[name] = [dict(zip(columns, row, strict=True)) for row in rows]
        if not self._as_json:
            out().print(f"\n{escape(title)}", highlight=False)
            print_table(columns, rows, numbers=columns[1:])
            out().print()

    def end(self, *, kept: Path | None, destination: str | None) -> None:
        """Say what is left, and how to go on."""
        if self._as_json:
            steps = [
                {"step": one.name, "what": one.what, "seconds": round(one.seconds, 3), "records": one.records}
                | {"bytes": one.size_bytes}
                | one.facts
                for one in self._steps
            ]
            print_json({"steps": steps, **self._results})
            return
        lines = [] if destination is None else [f"The files are in {destination}."]
        if kept is None:
            lines.append("Next: `millstream demo --data-dir demo` keeps all of it; docs/loader.md has the rest.")
        else:
            lines.append(f"Kept in {kept}. Next: millstream load status {kept / 'job.toml'} --offline")
        out().print("\n" + escape("\n".join(lines)), highlight=False, soft_wrap=True)
