"""What a config is: its name, type, default, limits and documentation, as rows of a table.

`ConfigKey` is one row, `ConfigDef` the table. A value is written as text everywhere it is kept or sent (properties
files, the metadata store, DescribeConfigs); `ConfigDef.parse` turns text into the typed value and says what is wrong
with it in the sentences Kafka uses, because operators and client libraries search for them.

Pure data and functions; nothing here knows a file, a broker or a loop.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Final, NamedTuple

ConfigValue = bool | int | float | str | list[str] | None
"""A parsed value. Lists are never changed in place."""

INT_MAX: Final = 2**31 - 1
LONG_MAX: Final = 2**63 - 1

# What Java's parsers take: digits of any script, a type suffix, hexadecimal. Not its NaN, which is inside every limit.
_INTEGER: Final = re.compile(r"[+-]?\d+\Z")
_DOUBLE: Final = re.compile(r"([+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|Infinity))[dDfF]?\Z")
_HEX_DOUBLE: Final = re.compile(r"([+-]?0[xX][0-9a-fA-F]*\.?[0-9a-fA-F]*[pP][+-]?[0-9]+)[dDfF]?\Z")
_LIST_SEPARATOR: Final = re.compile(r"\s*,\s*")


class ConfigError(ValueError):
    """A config's value is wrong, or its name is unknown; the text is a whole sentence in Kafka's words."""

    def __init__(self, message: str, *, name: str | None = None) -> None:
        super().__init__(message)
        # The config that is wrong, where it is one.
        self.name = name


def invalid_value(name: str, value: object, reason: str) -> ConfigError:
    """Return the error for a value that `name` cannot take, in Kafka's wording."""
    return ConfigError(f"Invalid value {_java_text(value)} for configuration {name}: {reason}", name=name)


class ConfigType(IntEnum):
    """The types of config values, numbered as DescribeConfigs sends them (KIP-569)."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7
    CLASS = 8
    PASSWORD = 9


class UpdateMode(Enum):
    """Whether a broker config changes while the broker runs, and for whom (KIP-226)."""

    READ_ONLY = "read-only"
    PER_BROKER = "per-broker"
    CLUSTER_WIDE = "cluster-wide"


class Importance(Enum):
    """How likely an operator has to think about a config."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Validator(NamedTuple):
    """A limit on parsed values; `text` describes what is allowed.

    `check` returns None, or what is wrong: the value and the reason, or a sentence in which {name} is the config's.
    """

    text: str
    check: Callable[[ConfigValue], tuple[object, str] | str | None]


def at_least(minimum: int) -> Validator:
    """Accept numbers from `minimum` on."""
    return between(minimum, None)


def between(minimum: int, maximum: int | None) -> Validator:
    """Accept numbers from `minimum` to `maximum`, both included."""

    def check(value: ConfigValue) -> tuple[object, str] | None:
        assert isinstance(value, int | float), value
        if value < minimum:
            return value, f"Value must be at least {minimum}"
        if maximum is not None and value > maximum:
            return value, f"Value must be no more than {maximum}"
        return None

    return Validator(f"[{minimum},...]" if maximum is None else f"[{minimum},...,{maximum}]", check)


def between_or(minimum: int, maximum: int, special: int) -> Validator:
    """Accept numbers from `minimum` to `maximum`, and `special`."""

    def check(value: ConfigValue) -> tuple[object, str] | None:
        assert isinstance(value, int), value
        if value == special or minimum <= value <= maximum:
            return None
        return value, f"Value must be between {minimum} and {maximum} or equal to {special}"

    return Validator(f"[{minimum},...,{maximum}] or {special}", check)


def one_of(*names: str) -> Validator:
    """Accept these strings."""

    def check(value: ConfigValue) -> tuple[object, str] | None:
        return None if value in names else (value, f"String must be one of: {', '.join(names)}")

    return Validator(f"[{', '.join(names)}]", check)


def one_of_any_case(*names: str) -> Validator:
    """Accept these strings, in capitals or not."""

    def check(value: ConfigValue) -> tuple[object, str] | None:
        assert isinstance(value, str), value
        if value.lower() in {name.lower() for name in names}:
            return None
        return value, f"String must be one of (case insensitive): {', '.join(names)}"

    return Validator(f"(case insensitive) [{', '.join(names)}]", check)


def list_of(*names: str) -> Validator:
    """Accept lists of these strings; an empty list is one."""

    def check(value: ConfigValue) -> tuple[object, str] | str | None:
        assert isinstance(value, list), value
        if "" in value:
            return "Configuration '{name}' values must not be empty."
        for entry in value:
            if entry not in names:
                return entry, f"String must be one of: {', '.join(names)}"
        return None

    return Validator(f"[{', '.join(names)}]", check)


def unlimited_or_at_least(minimum: int) -> Validator:
    """Accept numbers from `minimum` on, and any below 0 for no limit."""

    def check(value: ConfigValue) -> tuple[object, str] | None:
        assert isinstance(value, int), value
        if value < 0 or value >= minimum:
            return None
        return value, f"Value must be unlimited (-1) or, equal or greater than {minimum}"

    return Validator(f"-1 or [{minimum},...]", check)


def accepted_by(parse: Callable[[str], object], form: str) -> Validator:
    """Accept texts in which `parse` finds no fault; the ValueError that it raises says what is wrong with one."""

    def check(value: ConfigValue) -> tuple[object, str] | None:
        assert isinstance(value, str), value
        try:
            parse(value)
        except ValueError as error:
            return value, str(error)
        return None

    return Validator(form, check)


def only(allowed: ConfigValue, sentence: str) -> Validator:
    """Accept one value alone: the feature that another value would switch on does not exist here."""

    def check(value: ConfigValue) -> str | None:
        return None if value == allowed else sentence

    return Validator(f"[{_java_text(allowed)}]", check)


class Synonym(NamedTuple):
    """A broker config that gives a topic config (or another broker config) its default, times `factor`."""

    name: str
    factor: int = 1


class ConfigKey(NamedTuple):
    """One config.

    `default` is a parsed value. `doc` is one sentence or two, ours. `synonyms` are the broker configs that stand in for
    the config, the strongest first; for a broker config they start with itself.
    """

    name: str
    type: ConfigType
    default: ConfigValue
    doc: str
    validator: Validator | None = None
    importance: Importance = Importance.MEDIUM
    dynamic: UpdateMode = UpdateMode.READ_ONLY
    synonyms: tuple[Synonym, ...] = ()

    @property
    def sensitive(self) -> bool:
        """Whether the value is a secret and must never be shown."""
        return self.type is ConfigType.PASSWORD

    @property
    def is_dynamic(self) -> bool:
        """Whether the value may change while a broker runs."""
        return self.dynamic is not UpdateMode.READ_ONLY

    def parse(self, text: str) -> ConfigValue:
        """Return the typed value of `text`; raises ConfigError."""
        value = _parse(self.name, text, self.type)
        self.check(value)
        return value

    def check(self, value: ConfigValue) -> None:
        """Raise ConfigError if the parsed `value` is outside the limits."""
        if self.validator is None or value is None:
            return
        problem = self.validator.check(value)
        if isinstance(problem, str):
            raise ConfigError(problem.format(name=self.name), name=self.name)
        if problem is not None:
            raise invalid_value(self.name, *problem)

    def render(self, value: ConfigValue) -> str | None:
        """Return the text of a value, as DescribeConfigs shows it; secrets render to None."""
        if value is None or self.sensitive:
            return None
        return ",".join(value) if isinstance(value, list) else _java_text(value)


class ConfigDef(Mapping[str, ConfigKey]):
    """A table of configs by name."""

    def __init__(self, keys: list[ConfigKey]) -> None:
        self._keys = {key.name: key for key in sorted(keys, key=lambda key: key.name)}
        assert len(self._keys) == len(keys), "a config is defined twice"
        for key in keys:
            key.check(key.default)

    @property
    def keys_by_name(self) -> Mapping[str, ConfigKey]:
        """Every key by its name, in the order of names."""
        return self._keys

    def parse(self, name: str, text: str) -> ConfigValue:
        """Return the typed value of `text` for config `name`; raises ConfigError for an unknown name or a bad value."""
        key = self._keys.get(name)
        if key is None:
            raise ConfigError(f"Unknown configuration: {name}", name=name)
        return key.parse(text)

    def __getitem__(self, name: str) -> ConfigKey:
        return self._keys[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


_INTEGER_BITS: Final = {ConfigType.INT: 32, ConfigType.SHORT: 16, ConfigType.LONG: 64}


def _parse(name: str, text: str, kind: ConfigType) -> ConfigValue:
    trimmed = text.strip()
    match kind:
        case ConfigType.BOOLEAN:
            lowered = trimmed.lower()
            if lowered not in ("true", "false"):
                raise invalid_value(name, text, "Expected value to be either true or false")
            return lowered == "true"
        case ConfigType.INT | ConfigType.SHORT | ConfigType.LONG:
            bits = _INTEGER_BITS[kind]
            # A number of hundreds of digits is refused before int() spends time on it.
            if len(trimmed) <= 24 and _INTEGER.match(trimmed):
                number = int(trimmed)
                if -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
                    return number
            raise invalid_value(name, text, f"Not a number of type {kind.name}")
        case ConfigType.DOUBLE:
            if decimal := _DOUBLE.match(trimmed):
                return float(decimal[1])
            if hexadecimal := _HEX_DOUBLE.match(trimmed):
                return _from_hex(name, text, hexadecimal[1])
            raise invalid_value(name, text, "Not a number of type DOUBLE")
        case ConfigType.LIST:
            return _LIST_SEPARATOR.split(trimmed) if trimmed else []
        case ConfigType.STRING | ConfigType.CLASS | ConfigType.PASSWORD:
            return trimmed


def _from_hex(name: str, text: str, digits: str) -> float:
    try:
        return float.fromhex(digits)
    except (ValueError, OverflowError) as error:
        raise invalid_value(name, text, "Not a number of type DOUBLE") from error


def _java_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _java_double(value)
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return str(value)


def _java_double(value: float) -> str:
    # Java writes 1.7976931348623157E308 where Python writes 1.7976931348623157e+308, and does so from 1.0E7 on.
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return repr(value)
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int), value
    fraction = "".join(map(str, digits[1:])) or "0"
    return f"{'-' if sign else ''}{digits[0]}.{fraction}E{exponent + len(digits) - 1}"
