"""What the documentation says of the job file: a table for each section, made of the dataclasses themselves."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from millstream.hadoop_loader.job.checks import shown
from millstream.hadoop_loader.job.load_job import LoadJob
from millstream.hadoop_loader.job.secret import Secret
from millstream.hadoop_loader.job.setting import is_required
from millstream.hadoop_loader.job.walking import Entry, entries_of

_TOP = (
    "These stand before the first `[section]`. So does `include`: the path, from this file on, of one whose settings"
    " hold where this one does not say otherwise, or a list of such files, a later one over those before it."
)
_UNITS = {"_bytes": (2**30, "GB", 2**20, "MB", 2**10, "KB"), "_s": (3600, "h", 60, "min", 1, "s")}


def sections(cls: type[Any] = LoadJob, key: str = "", meaning: str = _TOP) -> Iterator[tuple[str, str, list[Entry]]]:
    """Each section with its key ("" for the top of the file), what it is, and its settings."""
    entries = list(entries_of(cls, f"{key}." if key else ""))
    yield key, meaning, [entry for entry in entries if entry.section is None]
    for entry in entries:
        if entry.section is not None:
            yield from sections(entry.section, entry.key, entry.setting.meaning)


def reference_lines() -> Iterator[str]:
    """The reference as Markdown, with a heading of the second level for each section."""
    for key, meaning, entries in sections():
        if not entries:
            continue
        yield f"## `[{key}]` {{ #{key.replace('.', '-')} }}\n" if key else "## Top of the file\n"
        yield f"{meaning}\n"
        yield "| key | value | default | meaning |"
        yield "|" + " --- |" * 4
        for entry in entries:
            cells = (f"`{entry.name}`", kind_of(entry), default_of(entry), meaning_of(entry))
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        yield ""


def kind_of(entry: Entry) -> str:
    """What is written in a file for a setting."""
    if entry.setting.kind:
        return entry.setting.kind
    origin = typing.get_origin(entry.type)
    if origin is not None and issubclass(origin, Mapping):
        return "table"
    if origin is not None:
        return "list of texts"
    if entry.type is Secret:
        return "secret"
    if entry.type is bool:
        return "true or false"
    if entry.type in (int, float):
        name = entry.name
        if name.endswith("_per_s"):
            return "size" if "bytes" in name else "number"
        return "size" if "bytes" in name else "time" if name.endswith("_s") else "number"
    return "text"


def default_of(entry: Entry) -> str:
    """What a setting is when a job does not say it."""
    field: dataclasses.Field[Any] = entry.field
    if is_required(field):
        return "**must be given**"
    factory = field.default_factory
    default: Any = field.default if factory is dataclasses.MISSING else factory()
    if default is None or default in ((), {}):
        return ""
    if kind_of(entry) in ("size", "time"):
        return f"`{_with_unit(entry.name, default)}`"
    return f"`{shown(default)}`"


def meaning_of(entry: Entry) -> str:
    """What a setting is, with its values, limits and an example."""
    setting = entry.setting
    text = setting.meaning
    lacking = [choice for choice in setting.choices if f"`{choice}`" not in text]
    if lacking:
        text += f" One of {', '.join(f'`{choice}`' for choice in setting.choices)}."
    limits = [
        f"{word} {_with_unit(entry.name, limit) if kind_of(entry) in ('size', 'time') else f'{limit:.15g}'}"
        for word, limit in (("least", setting.at_least), ("most", setting.at_most))
        if limit is not None and limit not in (0, 1) and not setting.parse
    ]
    if limits:
        text += f" At {' and at '.join(limits)}."
    if setting.example:
        text += f" Example: `{setting.example}`."
    return text


def _with_unit(name: str, value: float) -> str:
    unit = _UNITS["_bytes" if "bytes" in name else "_s"]
    for factor, text in zip(unit[::2], unit[1::2], strict=True):
        assert isinstance(factor, int)
        if value >= factor and value % factor == 0:
            return f"{value / factor:.15g} {text}"
    return f"{value:.15g}" + (" s" if unit[1] == "h" else " B")
