"""`millstream load keys`: what a job file may say, from the dataclasses that job files are read into."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from millstream.cli.options import Json, examples
from millstream.cli.output import out, print_json

if TYPE_CHECKING:
    from millstream.hadoop_loader.job.walking import Entry

_WIDTH_MAX: Final = 100
_INDENT: Final = "    "

KeyPrefix = Annotated[
    str | None,
    typer.Argument(metavar="KEY-PREFIX", help="Only keys that begin with it.", show_default=False),
]


def add_to(app: typer.Typer) -> None:
    """Make it a command of `app`."""
    app.command(
        epilog=examples(
            "millstream load keys",
            "millstream load keys destination.kerberos",
            "millstream load keys --json | jq -r '.[] | select(.required) | .key'",
        )
    )(keys)


def keys(prefix: KeyPrefix = None, as_json: Json = False) -> None:
    """List the keys of a job file: what is written there, its default, its limits and what it means."""
    from millstream.hadoop_loader.job.checks import nearest
    from millstream.hadoop_loader.job.reference import sections

    told = {entry.key: (section, meaning, entry) for section, meaning, entries in sections() for entry in entries}
    shown = [told[key] for key in told if key.startswith(prefix or "")]
    if not shown:
        raise typer.BadParameter(f"no key begins with {prefix}; {nearest(str(prefix), told)}".removesuffix("; "))
    if as_json:
        print_json([_as_json(entry) for _, _, entry in shown])
        return
    console = out()
    width = min(console.width, _WIDTH_MAX)
    for number, ((section, meaning), group) in enumerate(itertools.groupby(shown, key=lambda one: one[:2])):
        head = f"[{section}] {meaning}" if section else meaning
        lines = [*([""] if number else []), *_wrapped(head, width)]
        lines += itertools.chain.from_iterable(_lines(entry, width) for _, _, entry in group)
        console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _lines(entry: Entry, width: int) -> Iterator[str]:
    from millstream.hadoop_loader.job.reference import meaning_of

    facts = _as_json(entry)
    default = "must be given" if facts["required"] else f"default {facts['default']}" if facts["default"] else ""
    yield ""
    yield f"{entry.key} ({', '.join(filter(None, (facts['kind'], default)))})"
    yield from _wrapped(meaning_of(entry), width, _INDENT)


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    # Keys and values with hyphens are to be copied whole.
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _as_json(entry: Entry) -> dict[str, Any]:
    from millstream.hadoop_loader.job.reference import default_of, kind_of, meaning_of
    from millstream.hadoop_loader.job.setting import is_required

    required = is_required(entry.field)
    return {
        "key": entry.key,
        "kind": kind_of(entry),
        "required": required,
        "default": None if required else default_of(entry).strip("`") or None,
        "meaning": meaning_of(entry),
    }
