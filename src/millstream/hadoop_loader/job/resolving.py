"""A job with its secrets looked up: the only place where a reference becomes a text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from millstream.hadoop_loader.job.problem import JobError, Problem
from millstream.hadoop_loader.job.secret import Secret

if TYPE_CHECKING:
    from millstream.hadoop_loader.job.load_job import LoadJob


def resolve(job: LoadJob, environ: Mapping[str, str]) -> LoadJob:
    """Return `job` with the texts of its secrets. Raises JobError that names all those that lack."""
    problems: list[Problem] = []
    resolved: LoadJob = _resolved(job, "", environ, problems)
    if problems:
        raise JobError(problems, origin=f"job {job.name!r}")
    return resolved


def _resolved(value: Any, key: str, environ: Mapping[str, str], problems: list[Problem]) -> Any:
    if isinstance(value, Secret):
        try:
            return value.resolved(environ, key=key)
        except JobError as error:
            problems.extend(error.problems)
            return value
    if isinstance(value, Mapping):
        return {name: _resolved(held, f"{key}.{name}", environ, problems) for name, held in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {}
        for field in dataclasses.fields(value):
            held = getattr(value, field.name)
            found = _resolved(held, f"{key}.{field.name}" if key else field.name, environ, problems)
            if found is not held:
                changed[field.name] = found
        return dataclasses.replace(value, **changed) if changed else value
    return value
