"""One setting of a job: a dataclass field with its meaning, limits and unit beside it.

The dataclasses of this package are the table that everything walks: the reader of job files (types, units), the checks
(limits), and the reference in the documentation (meanings, defaults). A name ends in its unit where it has one, and a
job file may then say "256 MB" or "10 min" instead of a bare number; sizes count in powers of 1,024, as Kafka's and
Hadoop's do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, field
from typing import Any, Final

DEADLINE_S_MAX: Final = 86_400.0
"""Of one call or question: what systems count in milliseconds of 31 bits takes no more than 24 days."""

_METADATA: Final = "setting"

_SIZE_UNITS: Final = {
    "b": 1,
    "kb": 2**10,
    "kib": 2**10,
    "mb": 2**20,
    "mib": 2**20,
    "gb": 2**30,
    "gib": 2**30,
    "tb": 2**40,
    "tib": 2**40,
}
_TIME_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_AMOUNT: Final = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*\Z")


@dataclass(frozen=True, slots=True)
class Setting:
    """What a field means, and what it may hold; `check` returns a sentence and a remedy for a value it refuses."""

    meaning: str
    at_least: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] = ()
    # Read by a function of its own: the raw TOML value in, the field's value out; ValueError says what is wrong.
    parse: Callable[[Any], Any] | None = None
    # How the reference names what is written in a file, where the type does not say it.
    kind: str = ""
    # An example value, as TOML.
    example: str = ""


def setting(
    meaning: str,
    *,
    default: Any = MISSING,
    default_factory: Any = MISSING,
    at_least: float | None = None,
    at_most: float | None = None,
    choices: Sequence[str] = (),
    parse: Callable[[Any], Any] | None = None,
    kind: str = "",
    example: str = "",
    repr: bool = True,  # noqa: A002  dataclasses' own name for it
) -> Any:
    """Return a dataclass field with its meaning; without a default the setting must be given."""
    metadata = {_METADATA: Setting(meaning, at_least, at_most, tuple(choices), parse, kind, example)}
    if default_factory is not MISSING:
        return field(default_factory=default_factory, metadata=metadata, repr=repr)
    return field(default=default, metadata=metadata, repr=repr)


def setting_of(of: Field[Any]) -> Setting:
    """Return what was said of a field of a job's dataclass."""
    found = of.metadata.get(_METADATA)
    assert isinstance(found, Setting), f"the field {of.name} of a job has no meaning written down"
    return found


def is_required(of: Field[Any]) -> bool:
    """Whether a job has to give this field."""
    return of.default is MISSING and of.default_factory is MISSING


def size_bytes(text: str) -> int:
    """Return the bytes in "256 MB". Raises ValueError."""
    found = _AMOUNT.match(text)
    factor = _SIZE_UNITS.get(found[2].lower()) if found else None
    if found is None or factor is None:
        raise ValueError('write bytes as a number, or a size such as "256 MB" (B, KB, MB, GB, TB)')
    return round(float(found[1].replace("_", "")) * factor)


def duration_s(text: str) -> float:
    """Return the seconds in "10 min". Raises ValueError."""
    found = _AMOUNT.match(text)
    factor = _TIME_UNITS_S.get(found[2].lower()) if found else None
    if found is None or factor is None:
        raise ValueError('write seconds as a number, or a time such as "10 min" (ms, s, min, h, d)')
    return float(found[1].replace("_", "")) * factor
