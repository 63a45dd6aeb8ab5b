"""From a TOML document to a LoadJob, by a walk over the job's dataclasses; every problem is told at once.

A key is the name of its field, a section a table of the file. Amounts may be texts with a unit ("256 MB", "10 min").
Names with dots of their own (Kafka's configs, Spark's, Hadoop's) are written as they are: TOML makes tables of the
dots, and they are put together again here.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from millstream.hadoop_loader.job.checks import nearest, shown
from millstream.hadoop_loader.job.documents import INCLUDE, JobDocument, document_of, text_of
from millstream.hadoop_loader.job.load_job import LoadJob
from millstream.hadoop_loader.job.problem import JobError, Problem
from millstream.hadoop_loader.job.records import ValueSettings
from millstream.hadoop_loader.job.secret import Secret, is_reference
from millstream.hadoop_loader.job.setting import duration_s, is_required, size_bytes
from millstream.hadoop_loader.job.walking import Entry, entries_of

_REFERENCE: Final = 'write { env = "NAME" } or { file = "PATH" }'
# What stands in for a setting that must be given and is not, so that the checks can go on to the others.
_STAND_INS: Final[Mapping[type, Any]] = {str: "x", tuple: ()}


def read_job_file(path: Path) -> LoadJob:
    """Read a job file, and those it includes. Raises JobError with every problem of it."""
    return _read_file(path)[0]


def read_resolved(path: Path, environ: Mapping[str, str]) -> LoadJob:
    """Read a job file and look its secrets up, for one run. Raises JobError with every problem of it, and its line."""
    job, document = _read_file(path)
    try:
        return job.resolved(environ)
    except JobError as error:
        raise JobError(document.located(error.problems), origin=str(path)) from error


def read_job(text: str, *, origin: str) -> LoadJob:
    """Read a job from TOML text; files it names are looked for where the process is.

    Raises JobError with every problem of it.
    """
    return _read(document_of(text, origin=origin, directory=Path()), origin)


def _read_file(path: Path) -> tuple[LoadJob, JobDocument]:
    document = document_of(text_of(path), origin=str(path), directory=path.parent)
    job = _read(document, str(path))
    value, key = (_with_schema_path(part, path.parent) for part in (job.value, job.key))
    changed = value is not job.value or key is not job.key
    return dataclasses.replace(job, value=value, key=key) if changed else job, document


def _read(document: JobDocument, origin: str) -> LoadJob:
    reader = _Reader()
    values = reader.section(LoadJob, document.table, "")
    problems = reader.problems
    job = None
    try:
        job = LoadJob(**values)
    except JobError as error:
        told = {problem.key for problem in problems}
        problems += [problem for problem in error.problems if not _is_told(problem.key, told)]
    if problems:
        raise JobError(document.located(problems), origin=origin)
    assert job is not None
    return job


def _with_schema_path(part: ValueSettings, directory: Path) -> ValueSettings:
    """Return settings whose schema file is found from anywhere; paths in a job file start at the job file."""
    if part.schema_file is None or Path(part.schema_file).is_absolute():
        return part
    return dataclasses.replace(part, schema_file=str((directory / part.schema_file).absolute()))


def _is_told(key: str, told: set[str]) -> bool:
    return any(key == each or key.startswith(each + ".") or each.startswith(key + ".") for each in told)


class _Refused(Exception):  # noqa: N818  a message on its way, never an error to a caller
    """A value is none of its setting; the problem was noted."""


class _Reader:
    """Walks one document; keeps the problems it meets."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def section(self, cls: type[Any], table: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        """Return the keyword arguments of one dataclass; problems are noted, and values that have one left out."""
        entries = {entry.name: entry for entry in entries_of(cls, prefix)}
        for name, raw in table.items():
            if name not in entries:
                self._unknown(prefix + name, raw, entries)
        values: dict[str, Any] = {}
        for entry in entries.values():
            try:
                if entry.name in table:
                    values[entry.name] = self._value(entry, table[entry.name])
                elif is_required(entry.field):
                    values[entry.name] = self._missing(entry)
            except _Refused:
                if is_required(entry.field):
                    values[entry.name] = _stand_in(entry)
        return values

    def _missing(self, entry: Entry) -> Any:
        if entry.section is not None:
            return entry.section(**self.section(entry.section, {}, entry.key + "."))
        example = f", as in {entry.name} = {entry.setting.example}" if entry.setting.example else ""
        self.problems.append(Problem(entry.key, "", "it is not given", f"give it{example}"))
        return _stand_in(entry)

    def _unknown(self, key: str, raw: Any, entries: Mapping[str, Entry]) -> None:
        name = key.rpartition(".")[2]
        near = nearest(name, entries)
        if not near:
            # Known somewhere else: most often the table is the wrong one.
            elsewhere = _elsewhere(name)
            near = f"did you mean {elsewhere}?" if elsewhere else ""
        if name == INCLUDE:
            near = "write it before the first [section]"
        value = "" if isinstance(raw, Mapping) else "[hidden]" if _may_be_secret(name) else shown(raw)
        known = ", ".join(entries)
        where = f"[{key.rpartition('.')[0]}]" if "." in key else "a job"
        others = f"{where} has {known} (millstream load keys {key.rpartition('.')[0]}".rstrip() + ")"
        self.problems.append(Problem(key, value, "there is no such key", near or others))

    def _value(self, entry: Entry, raw: Any) -> Any:
        if entry.section is not None:
            if not isinstance(raw, Mapping):
                self._refuse(entry, raw, "it is a table", f"write [{entry.key}] and its keys on lines of their own")
            return entry.section(**self.section(entry.section, raw, entry.key + "."))
        if entry.setting.parse is not None:
            try:
                return entry.setting.parse(raw)
            except ValueError as error:
                self._refuse(entry, raw, "it is none of its values", str(error))
        return self._of_type(entry, raw)

    def _of_type(self, entry: Entry, raw: Any) -> Any:
        kind = entry.type
        origin = typing.get_origin(kind)
        if kind is Secret:
            return self._secret(entry.key, raw)
        if origin is tuple or origin is frozenset:
            given = [raw] if isinstance(raw, str) else raw
            if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
                self._refuse(entry, raw, "it is a list of texts", f"write it as in {entry.setting.example or ['...']}")
            return (tuple if origin is tuple else frozenset)(given)
        if origin is not None and issubclass(origin, Mapping):
            return self._names(entry, raw)
        if kind is bool:
            return self._checked(entry, raw, isinstance(raw, bool), "it is neither true nor false", "write one of them")
        if kind is str:
            return self._checked(entry, raw, isinstance(raw, str), "it is no text", "write it in quotes")
        assert kind in (int, float), f"{entry.key}: a job file has no {kind}"
        return self._number(entry, raw)

    def _number(self, entry: Entry, raw: Any) -> int | float:
        unit: tuple[Callable[[str], float], str] | None = None
        if entry.name.endswith("bytes") or "_bytes_" in entry.name:
            unit = size_bytes, 'a number of bytes, or a size such as "256 MB"'
        elif entry.name.endswith("_s") and not entry.name.endswith("_per_s"):
            unit = duration_s, 'a number of seconds, or a time such as "10 min"'
        if unit is not None and isinstance(raw, str):
            try:
                raw = unit[0](raw)
            except ValueError as error:
                self._refuse(entry, raw, "it is no amount", str(error))
        plain = "a whole number" if entry.type is int else "a number"
        what, remedy = ("it is no amount", f"give {unit[1]}") if unit else (f"it is not {plain}", f"give {plain}")
        fine = isinstance(raw, int | float) and not isinstance(raw, bool) and raw == raw and abs(raw) < 2**63
        if entry.type is int:
            fine = fine and raw == int(raw)
        self._checked(entry, raw, fine, what, remedy)
        return int(raw) if entry.type is int else float(raw)

    def _names(self, entry: Entry, raw: Any) -> dict[str, str | Secret]:
        """Read a table of names with dots; their values are texts, numbers, booleans or secrets."""
        if not isinstance(raw, Mapping):
            self._refuse(entry, raw, "it is a table", f"write [{entry.key}] and its names on lines of their own")
        takes_secrets = Secret in typing.get_args(typing.get_args(entry.type)[1])
        values: dict[str, str | Secret] = {}

        def take(table: Mapping[str, Any], prefix: str) -> None:
            for name, held in table.items():
                dotted, key = f"{prefix}{name}", f"{entry.key}.{prefix}{name}"
                if dotted in values:
                    # Written with dots here and as one text there: what stands first goes over what is included.
                    continue
                if isinstance(held, Mapping):
                    if takes_secrets and is_reference(held):
                        try:
                            values[dotted] = self._secret(key, held)
                        except _Refused:
                            continue
                    else:
                        take(held, dotted + ".")
                elif isinstance(held, bool):
                    values[dotted] = "true" if held else "false"
                elif isinstance(held, str | int | float):
                    values[dotted] = str(held)
                elif isinstance(held, list) and all(isinstance(each, str) for each in held):
                    values[dotted] = ",".join(held)
                else:
                    self.problems.append(
                        Problem(key, shown(held), "it is a text, a number, true or false", "write one")
                    )

        take(raw, "")
        return values

    def _secret(self, key: str, raw: Any) -> Secret:
        if is_reference(raw) and len(raw) == 1 and all(isinstance(each, str) and each for each in raw.values()):
            return Secret(env=raw.get("env"), file=raw.get("file"))
        what = "a secret stands in the clear" if isinstance(raw, str) else "it is no reference to a secret"
        self.problems.append(Problem(key, "[hidden]", what, _REFERENCE))
        raise _Refused

    def _checked(self, entry: Entry, raw: Any, fine: bool, what: str, remedy: str) -> Any:
        if not fine:
            self._refuse(entry, raw, what, remedy)
        return raw

    def _refuse(self, entry: Entry, raw: Any, what: str, remedy: str) -> typing.NoReturn:
        value = raw.isoformat() if isinstance(raw, datetime.date | datetime.time) else shown(raw)
        self.problems.append(Problem(entry.key, "[hidden]" if _may_be_secret(entry.name) else value, what, remedy))
        raise _Refused


def _stand_in(entry: Entry) -> Any:
    if entry.section is not None:
        required = (each for each in entries_of(entry.section) if is_required(each.field))
        return entry.section(**{each.name: _stand_in(each) for each in required})
    return _STAND_INS[typing.get_origin(entry.type) or entry.type]


def _may_be_secret(name: str) -> bool:
    return any(word in name.lower() for word in ("password", "secret", "token", "credential", "passwd"))


def _elsewhere(name: str) -> str | None:
    """Return the key in another table that is called the same, or nearly."""
    known: dict[str, str] = {}

    def collect(cls: type[Any], prefix: str) -> None:
        for entry in entries_of(cls, prefix):
            known.setdefault(entry.name, entry.key)
            if entry.section is not None:
                collect(entry.section, entry.key + ".")

    collect(LoadJob, "")
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return known[near[0]] if near else None
