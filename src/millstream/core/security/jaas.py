"""A sasl.jaas.config line, as Kafka's documentation has people write it, read for its options.

org.apache.kafka.common.security.plain.PlainLoginModule required username="ann" password="s3cret";
"""

from __future__ import annotations

import re
from typing import Final

_HEAD: Final = re.compile(r"\s*[\w.$]+\s+(?:required|requisite|sufficient|optional)\b", re.IGNORECASE)
_OPTION: Final = re.compile(r"\s+([\w.$-]+)\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s\";]+))")
_ESCAPE: Final = re.compile(r"\\(.)")


def parse_jaas(text: str) -> dict[str, str]:
    """Return the options of a login module's line. Raises ValueError, without showing what may be a password."""
    head = _HEAD.match(text)
    if head is None:
        raise ValueError('it is no login module\'s line: MODULE required NAME="VALUE" ...;')
    options: dict[str, str] = {}
    position = head.end()
    while option := _OPTION.match(text, position):
        options[option[1]] = _ESCAPE.sub(r"\1", option[2]) if option[2] is not None else option[3]
        position = option.end()
    if text[position:].strip() not in ("", ";"):
        raise ValueError('behind its module come options as NAME="VALUE", and a semicolon')
    return options
