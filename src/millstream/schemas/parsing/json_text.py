"""JSON text read within bounds, and written as Java's Jackson writes it, so that texts equal those of Java registries.

Where the standard library's encoder and Jackson differ is in doubles (`1.0E10`) and control characters (`\\u001F`).
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal, InvalidOperation
from json.encoder import encode_basestring
from typing import Any, Final, NoReturn

from millstream.schemas.parsing.parsed_schema import NESTING_DEPTH_MAX, SCHEMA_SIZE_BYTES_MAX, InvalidSchemaError

NUMBER_DIGITS_MAX: Final = 1000
"""The longest number: Jackson's own bound; the interpreter's (4,300 digits) must never be met."""

NAME_CHARACTERS_MAX: Final = 1000
"""The longest name with its namespace or package: one may be repeated for everything that is in it."""

_TOKENS: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_COMMENTS: Final = re.compile(r'("(?:[^"\\]|\\.)*+")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_LOWER_ESCAPE: Final = re.compile(r"\\\\|\\u00[01][a-f]")
_CONTROLS: Final = re.compile(r"[\x0b\x0e\x0f\x1a-\x1f]")


def check_size(text: str, references: dict[str, str] | None = None) -> None:
    """Raise InvalidSchemaError where a text with its references is over SCHEMA_SIZE_BYTES_MAX, or no Unicode."""
    size = len(text) + sum(map(len, references.values())) if references else len(text)
    if size > SCHEMA_SIZE_BYTES_MAX:
        raise InvalidSchemaError(
            f"the schema has {size} characters with its references, over the {SCHEMA_SIZE_BYTES_MAX} a schema may have"
        )
    if not text.isascii():
        check_unicode(text)


def check_unicode(text: str) -> None:
    """Raise InvalidSchemaError for half a surrogate pair, which no store could take."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidSchemaError(f"character {error.start} of the schema is half a surrogate pair") from None


class ExactFloat(float):
    """A number with a fraction or an exponent that remembers how it was written, up to what Java's BigDecimal keeps."""

    __slots__ = ("_decimal",)

    _decimal: Decimal

    def __new__(cls, text: str) -> ExactFloat:
        number = super().__new__(cls, text)
        number._decimal = Decimal(text)
        return number

    @property
    def text(self) -> str:
        """The number as BigDecimal's toString writes it."""
        return str(self._decimal)

    @property
    def magnitude(self) -> int:
        """The power of ten of its first digit."""
        return self._decimal.adjusted()


def load_json(text: str, *, comments: bool = False, exact: bool = False) -> Any:
    """Return the value of `text`; `comments` lets `//` and `/* */` pass, as Avro's Java does.

    Numbers with a fraction or an exponent become float, or ExactFloat where `exact` is wanted. Raises
    InvalidSchemaError with line and column, or when it nests deeper than NESTING_DEPTH_MAX.
    """
    check_depth(text)
    try:
        return (_EXACT_DECODER if exact else _DECODER).decode(text)
    except json.JSONDecodeError as error:
        if comments and "/" in text:
            stripped = _COMMENTS.sub(lambda match: match[1] or " ", text)
            if stripped != text:
                return load_json(stripped)
        raise InvalidSchemaError(f"no valid JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error


def check_depth(text: str) -> None:
    """Raise InvalidSchemaError for JSON that nests deeper than NESTING_DEPTH_MAX."""
    if text.count("{") + text.count("[") <= NESTING_DEPTH_MAX:
        return
    depth = 0
    for match in _TOKENS.finditer(text):
        found = match[0]
        if found in "[{":
            depth += 1
            if depth > NESTING_DEPTH_MAX:
                raise InvalidSchemaError(
                    f"the JSON nests deeper than {NESTING_DEPTH_MAX} levels at character {match.start()}"
                )
        elif found in "]}":
            depth -= 1


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidSchemaError(f"no valid JSON: {name} is no JSON value")


def _integer(digits: str) -> int:
    if len(digits) > NUMBER_DIGITS_MAX:
        raise InvalidSchemaError(f"a number has {len(digits)} digits, over the {NUMBER_DIGITS_MAX} one may have")
    return int(digits)


def _exact_float(text: str) -> ExactFloat:
    if len(text) > NUMBER_DIGITS_MAX:
        raise InvalidSchemaError(f"a number has {len(text)} digits, over the {NUMBER_DIGITS_MAX} one may have")
    try:
        return ExactFloat(text)
    except InvalidOperation:
        raise InvalidSchemaError(f"the number {text} has an exponent out of all bounds") from None


_DECODER: Final = json.JSONDecoder(parse_int=_integer, parse_constant=_refuse_constant)
_EXACT_DECODER: Final = json.JSONDecoder(parse_int=_integer, parse_float=_exact_float, parse_constant=_refuse_constant)
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))


def quoted(text: str) -> str:
    """Return `text` as a JSON string, as Jackson escapes it."""
    encoded = encode_basestring(text)
    if _CONTROLS.search(text):
        encoded = _LOWER_ESCAPE.sub(lambda match: match[0][:2] + match[0][2:].upper(), encoded)
    return encoded


def compact_json(value: Any, *, sort_keys: bool = False) -> str:
    """Return `value` without white space, as Jackson's default generator writes it; keys sorted where wanted."""
    if not sort_keys and isinstance(value, str):
        return quoted(value)
    parts: list[str] = []
    _write(value, parts, sort_keys)
    return "".join(parts)


def _write(value: Any, parts: list[str], sort_keys: bool) -> None:
    if isinstance(value, str):
        parts.append(quoted(value))
    elif isinstance(value, dict):
        opening = "{"
        for key in sorted(value) if sort_keys else value:
            parts.append(f"{opening}{quoted(key)}:")
            _write(value[key], parts, sort_keys)
            opening = ","
        parts.append("}" if value else "{}")
    elif isinstance(value, list):
        opening = "["
        for item in value:
            parts.append(opening)
            _write(item, parts, sort_keys)
            opening = ","
        parts.append("]" if value else "[]")
    elif isinstance(value, float):
        parts.append(value.text if isinstance(value, ExactFloat) else java_double(value))
    else:
        parts.append(_ENCODER.encode(value))


def java_double(value: float) -> str:
    """Return the text Java's Double.toString gives; what JSON can't hold is quoted, as Jackson does.

    Plain digits from 10^-3 up to 10^7, else one digit before the point and an exponent.
    """
    if math.isnan(value):
        return '"NaN"'
    if math.isinf(value):
        return '"Infinity"' if value > 0 else '"-Infinity"'
    text = repr(value)
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return text
    mantissa, _, exponent = text.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    all_digits = (whole + fraction).lstrip("0")
    if exponent:
        power = int(exponent) + len(whole) - 1
    elif whole != "0":
        power = len(whole) - 1
    else:
        power = -(len(fraction) - len(all_digits)) - 1
    all_digits = all_digits.rstrip("0") or "0"
    return f"{'-' if value < 0 else ''}{all_digits[0]}.{all_digits[1:] or '0'}E{power}"
