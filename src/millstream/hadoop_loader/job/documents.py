"""The TOML document of a job: its file over the files that it includes, and where each key of it stands.

    include = "common.toml"        # or a list of files, of which a later one goes over those before it

Jobs that differ in a few settings, those of single topics most often, have the rest in one file. Tables are put
together key by key; all else, a list or a reference to a secret too, is that of the last file that has it. What is
included includes nothing itself, so whoever reads a job sees in one line where its settings are.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from millstream.hadoop_loader.job.checks import shown
from millstream.hadoop_loader.job.lines import lines_of, nearest_key
from millstream.hadoop_loader.job.problem import JobError, Problem
from millstream.hadoop_loader.job.secret import is_reference

INCLUDE: Final = "include"
INCLUDED_FILES_MAX: Final = 16
JOB_BYTES_MAX: Final = 4 * 1024 * 1024

_FILE: Final = "the file"


class JobDocument(NamedTuple):
    """What the files come to together, and the lines of their keys: the job's own file first, then the last one."""

    table: Mapping[str, Any]
    # What messages call a file ("" for the job's own), and its lines.
    lines: Sequence[tuple[str, Mapping[str, int]]]

    def located(self, problems: Sequence[Problem]) -> list[Problem]:
        """Return problems with the file and the line of their keys, in the order of the files."""
        order = [name for name, _ in self.lines]
        found = [self._located(problem) for problem in problems]
        return sorted(found, key=lambda problem: (order.index(problem.origin), problem.line or 0))

    def _located(self, problem: Problem) -> Problem:
        # In the file that says most of the key; where several say as much, in the one that goes over the others.
        name, lines = max(self.lines, key=lambda each: len(nearest_key(problem.key, each[1])))
        return replace(problem, line=lines.get(nearest_key(problem.key, lines)), origin=name)


def text_of(path: Path) -> str:
    """Return the text of a job file. Raises JobError."""
    try:
        data = path.read_bytes() if path.stat().st_size <= JOB_BYTES_MAX else None
    except OSError as error:
        problem = Problem(_FILE, "", f"it cannot be read: {error.strerror}", "give the path of a job file")
        raise JobError([problem], origin=str(path)) from error
    if data is None:
        problem = Problem(_FILE, "", f"it is longer than {JOB_BYTES_MAX} bytes", "give the path of a job file")
        raise JobError([problem], origin=str(path))
    try:
        # Some editors begin a text with a mark.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = Problem(_FILE, "", "it is no UTF-8 text", "save it as UTF-8", line)
        raise JobError([problem], origin=str(path)) from error


def document_of(text: str, *, origin: str, directory: Path) -> JobDocument:
    """Return the document of a job's text; paths of what it includes start at `directory`. Raises JobError."""
    own, own_lines = _parsed(text, origin), lines_of(text)

    def refused(value: str, what: str, remedy: str) -> JobError:
        return JobError([Problem(INCLUDE, value, what, remedy, own_lines.get(INCLUDE))], origin=origin)

    given = own.pop(INCLUDE, [])
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise refused(shown(given), "it names no files", 'write it as in include = "common.toml"')
    if len(names) > INCLUDED_FILES_MAX:
        raise refused("", f"{len(names)} files are more than {INCLUDED_FILES_MAX}", "put some of them together")
    below: dict[str, Any] = {}
    lines: list[tuple[str, Mapping[str, int]]] = []
    for name in names:
        path = directory / name
        try:
            said = text_of(path)
        except JobError as error:
            raise refused(shown(name), error.problems[0].what, "name a file of settings, from this one on") from error
        part = _parsed(said, str(path))
        if INCLUDE in part:
            raise refused(shown(name), "it includes files itself", "name all of them here, the most general one first")
        _place_schema_files(part, path.parent)
        below = _over(part, below)
        lines.insert(0, (str(path), lines_of(said)))
    return JobDocument(_over(own, below), [("", own_lines), *lines])


def _place_schema_files(table: Mapping[str, Any], directory: Path) -> None:
    """Have paths of schemas start at the file that says them."""
    for section in ("value", "key"):
        part = table.get(section)
        if isinstance(part, dict) and isinstance(part.get("schema_file"), str):
            part["schema_file"] = str((directory / part["schema_file"]).absolute())


def _over(upper: Mapping[str, Any], lower: Mapping[str, Any]) -> dict[str, Any]:
    """Return two tables as one, in which what `upper` says comes first, and goes over what `lower` says."""
    both = {**upper, **{name: held for name, held in lower.items() if name not in upper}}
    for name in upper.keys() & lower.keys():
        above, below = upper[name], lower[name]
        if (
            isinstance(above, Mapping)
            and isinstance(below, Mapping)
            and not (is_reference(above) or is_reference(below))
        ):
            both[name] = _over(above, below)
    return both


def _parsed(text: str, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise JobError([_syntax_problem(error, text)], origin=origin) from error
    except RecursionError as error:
        problem = Problem(_FILE, "", "lists or tables are in one another more deeply than can be read", "mend it")
        raise JobError([problem], origin=origin) from error


def _syntax_problem(error: tomllib.TOMLDecodeError, text: str) -> Problem:
    # "Expected '=' after a key in a key/value pair (at line 3, column 5)"
    what, _, where = str(error).partition(" (at ")
    digits = "".join(each for each in where.partition(",")[0] if each.isdecimal())
    line = int(digits) if digits else text.count("\n") + 1 if where else None
    at = text.split("\n")[line - 1].strip() if line is not None and line <= text.count("\n") + 1 else ""
    what = what[:1].lower() + what[1:]
    # A line may hold a secret that somebody wrote in the clear.
    hidden = any(word in at.lower() for word in ("password", "secret", "token", "key", "jaas"))
    quoted = f", at: {at[:60]}" if at and not hidden else ""
    remedy = "mend the line"
    if what.startswith("invalid value"):
        remedy = 'put texts in quotes, as in name = "flights"'
    elif what.startswith(("cannot overwrite", "cannot declare", "cannot mutate")):
        what, remedy = "the key or the table is given twice", "leave one of the two"
    return Problem(_FILE, "", f"it is no TOML: {what}{quoted}", remedy, line)
