"""Java's .properties syntax, as far as server.properties files use it, with the line each setting starts on.

    # comment      ! comment
    name=value     name: value     name value       blanks around name and separator are dropped
    a backslash at a line's end joins the next line, whose leading blanks are dropped
    \\t \\n \\r \\f \\uXXXX stand for one character; a backslash before any other keeps that one

A name that comes twice has its last value, as in Java.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_ESCAPES: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_BLANKS: Final = " \t\f"
_HEX4: Final = re.compile(r"[0-9a-fA-F]{4}")


class PropertiesError(ValueError):
    """The text is no properties file; the message names the line."""


class Property(NamedTuple):
    """One setting: its value and the number (from 1) of the line it starts on."""

    value: str
    line: int


def read_properties(source: str | Path) -> dict[str, Property]:
    """Return the settings of a properties file (a Path) or of its text, in the file's order.

    Raises PropertiesError for a broken escape, OSError for a file that cannot be read.
    """
    text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
    settings: dict[str, Property] = {}
    for line, content in _logical_lines(text):
        name, value = _split(content, line)
        settings[name] = Property(value, line)
    return settings


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    parts: list[str] = []
    first = 0
    for number, natural in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        line = natural.lstrip(_BLANKS)
        if not parts:
            if not line or line[0] in "#!":
                continue
            first = number
        trailing = len(line) - len(line.rstrip("\\"))
        if trailing % 2:
            parts.append(line[:-1])
            continue
        yield first, "".join((*parts, line))
        parts = []
    if parts:
        yield first, "".join(parts)


def _split(content: str, line: int) -> tuple[str, str]:
    end = 0
    while end < len(content) and content[end] not in "=:" + _BLANKS:
        end += 2 if content[end] == "\\" else 1
    rest = content[end:].lstrip(_BLANKS)
    if rest[:1] in ("=", ":"):
        rest = rest[1:].lstrip(_BLANKS)
    return _unescape(content[:end], line), _unescape(rest, line)


def _unescape(text: str, line: int) -> str:
    if "\\" not in text:
        return text
    result: list[str] = []
    position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if character == "\\" and position < len(text):
            character = text[position]
            position += 1
            if character == "u":
                digits = _HEX4.match(text, position)
                if digits is None:
                    raise PropertiesError(f"line {line}: \\u is not followed by four hexadecimal digits")
                character = chr(int(digits[0], 16))
                position += 4
            else:
                character = _ESCAPES.get(character, character)
        result.append(character)
    return "".join(result)
