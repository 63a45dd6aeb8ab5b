"""A job with its secrets and schema files looked up: the only place where a reference becomes a text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millstream.hadoop_loader.job.problem import JobError, Problem
from millstream.hadoop_loader.job.records import SCHEMA_BYTES_MAX, ValueSettings
from millstream.hadoop_loader.job.secret import Secret

if TYPE_CHECKING:
    from millstream.hadoop_loader.job.load_job import LoadJob


def resolve(job: LoadJob, environ: Mapping[str, str]) -> LoadJob:
    """Return `job` with the texts of its secrets and schema files. Raises JobError that names all those that lack."""
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
        if isinstance(value, ValueSettings) and value.schema_file is not None and value.schema is None:
            changed["schema"] = _schema(value.schema_file, key, problems)
        resolved = dataclasses.replace(value, **changed) if changed else value
        if isinstance(resolved, ValueSettings) and resolved.schema is not None:
            problems.extend(_schema_problems(resolved, key))
        return resolved
    return value


def _schema_problems(part: ValueSettings, key: str) -> Iterator[Problem]:
    """Look at the text of a schema before a worker does."""
    from millstream.schemas.parsing import InvalidSchemaError, SchemaType, parse

    assert part.schema is not None
    kind = SchemaType.PROTOBUF if part.format == "protobuf" else SchemaType.AVRO
    where, shown = ("schema_file", f'"{part.schema_file}"') if part.schema_file is not None else ("schema", "")
    try:
        parse(kind, part.schema)
    except InvalidSchemaError as error:
        name = "Protobuf" if kind is SchemaType.PROTOBUF else "Avro"
        yield Problem(f"{key}.{where}", shown, f"it is no {name} schema: {error}", "mend the schema")


def _schema(file: str, key: str, problems: list[Problem]) -> str | None:
    try:
        data = Path(file).read_bytes()
        text = data.decode("utf-8-sig") if len(data) <= SCHEMA_BYTES_MAX else ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        what = f"the file cannot be read: {reason}"
    else:
        if text.strip():
            return text
        what = f"the file is {'empty' if data.strip() == b'' else f'longer than {SCHEMA_BYTES_MAX} bytes'}"
    problems.append(Problem(f"{key}.schema_file", f'"{file}"', what, "name a file with the schema"))
    return None
