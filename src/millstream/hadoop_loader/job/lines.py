"""On which line of a TOML file a key stands; tomllib does not say.

A scan of tables and keys that knows as much of TOML as it takes to pass over texts and lists of several lines. It runs
over files that tomllib has read, so what it meets is well-formed; a key it misses has no line, and nothing more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_KEY: Final = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED: Final = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_TABLE: Final = re.compile(rf"\s*\[\[?\s*({_DOTTED})\s*\]\]?")
_PAIR: Final = re.compile(rf"\s*({_DOTTED})\s*=\s*(.*)", re.DOTALL)
_PART: Final = re.compile(_KEY)
_INLINE: Final = re.compile(rf"[{{,]\s*({_DOTTED})\s*=")


def lines_of(text: str) -> dict[str, int]:
    """Return the line, from 1 on, of each dotted key and each table in TOML text."""
    lines: dict[str, int] = {}
    table = ""
    rest = enumerate(text.split("\n"), start=1)
    for number, line in rest:
        if found := _TABLE.match(line):
            table = _plain(found[1])
            lines.setdefault(table, number)
        elif found := _PAIR.match(line):
            key = _joined(table, _plain(found[1]))
            value = found[2]
            lines.setdefault(key, number)
            for inline in _INLINE.finditer(value) if value.startswith("{") else ():
                lines.setdefault(_joined(key, _plain(inline[1])), number)
            while not _is_whole(value):
                following = next(rest, None)
                if following is None:
                    break
                value += "\n" + following[1]
    return lines


def nearest_key(key: str, lines: Mapping[str, int]) -> str:
    """Return the key, or the nearest table around it, that a file has a line of; "" where it has none."""
    while key and key not in lines:
        key = key.rpartition(".")[0]
    return key


def _plain(dotted: str) -> str:
    return ".".join(part[1:-1] if part[0] in "\"'" else part for part in _PART.findall(dotted))


def _joined(table: str, key: str) -> str:
    return f"{table}.{key}" if table else key


def _is_whole(value: str) -> bool:
    """Whether a value ends in what there is of it: no text of several lines and no list is still open."""
    depth = 0
    position = 0
    while position < len(value):
        character = value[position]
        if character == "#":
            end = value.find("\n", position)
            position = len(value) if end < 0 else end
        elif character in "\"'":
            quote = character * 3 if value.startswith(character * 3, position) else character
            end = position + len(quote)
            while not value.startswith(quote, end):
                if end >= len(value):
                    return False
                end += 2 if character == '"' and value[end] == "\\" else 1
            position = end + len(quote)
            continue
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        position += 1
    return depth <= 0
