"""The settings of a job as a walk over its dataclasses: every field with its dotted key, type and meaning."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from millstream.hadoop_loader.job.setting import Setting, setting_of


class Entry(NamedTuple):
    """A field: `key` as in a job file; `type` without None; `section` the dataclass it is of, where it is one."""

    key: str
    name: str
    type: Any
    optional: bool
    setting: Setting
    field: dataclasses.Field[Any]
    section: type[Any] | None


def entries_of(cls: type[Any], prefix: str = "") -> Iterator[Entry]:
    """The fields of one dataclass, in order."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind, optional = _without_none(hints[field.name])
        section = kind if isinstance(kind, type) and dataclasses.is_dataclass(kind) else None
        if section is not None and section.__name__ == "Secret":
            section = None
        yield Entry(prefix + field.name, field.name, kind, optional, setting_of(field), field, section)


def walk(value: Any, prefix: str = "") -> Iterator[tuple[Entry, Any]]:
    """Every field of a job's dataclass and of those inside it that are not a section, with its value."""
    for entry in entries_of(type(value), prefix):
        held = getattr(value, entry.name)
        if entry.section is None:
            yield entry, held
        elif held is not None:
            yield from walk(held, entry.key + ".")


def _without_none(hint: Any) -> tuple[Any, bool]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = [each for each in typing.get_args(hint) if each is not types.NoneType]
        if len(rest) < len(typing.get_args(hint)):
            return (rest[0] if len(rest) == 1 else typing.Union[tuple(rest)]), True  # noqa: UP007
    return hint, False
