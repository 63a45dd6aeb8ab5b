"""What is wrong with a job: every problem at once, each with its key, its value, what to do, and its line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend. `key` is dotted, as in the file; `value` is how it was written, "" where it is missing."""

    key: str
    value: str
    what: str
    remedy: str
    line: int | None = None
    # The file, where problems of several are told together.
    origin: str = ""

    def __str__(self) -> str:
        where = f"{self.origin}: " if self.origin else ""
        where += f"line {self.line}: " if self.line is not None else ""
        shown = f"{self.key} = {self.value}" if self.value else self.key
        return f"{where}{shown}: {self.what}; {self.remedy}"


class JobError(ValueError):
    """A job cannot be run as it is written. `problems` holds all that was found, in the order of the file."""

    def __init__(self, problems: Sequence[Problem], *, origin: str = "the job") -> None:
        assert problems, "an error without a problem"
        self.origin = origin
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"{origin}: {count}", *(f"  {problem}" for problem in self.problems)]))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuilt, (self.problems, self.origin)


def _rebuilt(problems: Sequence[Problem], origin: str) -> JobError:
    return JobError(problems, origin=origin)
