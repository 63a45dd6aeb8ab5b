"""JSON objects by an Avro schema that says more than JSON does, one at a time by Python's own reader.

    boolean, numbers, text        as JSON has them; a number that its type cannot hold is bad
    bytes, fixed                  text, in UTF-8; of a fixed as many bytes as it has
    enum                          text that is one of its symbols
    date, timestamps              a number (days, or of the type's unit, since 1970), or text as in ISO 8601
    time of day                   a number, of the type's unit
    decimal                       a number or text with no more digits than it may have
    array, record                 an array, an object; members that the schema lacks are left out
    map                           an object
    a union of several types      what its first branch to take it takes, or `{"branch": value}` as Avro's JSON has it

What an object lacks is null, and bad where the schema has no null. pyarrow's reader of JSON (`JsonDecoder`) is five
times as quick and knows no enum, map, fixed or union, nor a timestamp that is a number: it is asked first where it may
do, and this one for what it could not read.

The schema is one of columns as Parquet has them: what a number or bytes mean there that Parquet's readers know no type
for stands in a property of the type (`tables.parquet.UNREAD`).
"""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Callable
from decimal import Context, Decimal, InvalidOperation
from typing import Any, Final, NoReturn

import pyarrow as pa
import pyarrow.types as pt

from millstream.hadoop_loader.tables.parquet import UNREAD
from millstream.schemas.avro import UnsupportedSchemaError
from millstream.schemas.avro.decoder import BadDatum, Decoded
from millstream.schemas.avro.layout import Layout, Slot
from millstream.schemas.parsing.avro import parse_avro
from millstream.schemas.parsing.avro_types import EnumType, MapType, RecordType

Read = Callable[[Any], Any]

_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND: Final = datetime.timedelta(microseconds=1)
_BEHIND_MICROSECONDS: Final = re.compile(r"[.,][0-9]{6}([0-9]+)")
_UNITS_PER_S: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_FLOAT_END: Final = 2.0**128 - 2.0**103  # what lies below is rounded to a number that 32 bits hold
_SHOWN_CHARACTERS: Final = 40


class JsonObjects:
    """Reads JSON values into the columns of an Avro schema."""

    def __init__(self, schema: str) -> None:
        """Raises UnsupportedSchemaError, with its path, for a type that no JSON is read into."""
        root = parse_avro(schema).root
        layout = Layout(root, raw_recursion=True)
        # What an object lacks is null; whether that may be is told as the object is read.
        self.schema = pa.schema([field.with_nullable(True) for field in layout.schema])
        # Whether pyarrow's reader knows all the types: it does not know all they may be written as.
        self.is_plain = isinstance(root, RecordType) and all(_is_plain(slot) for slot in layout.slots)
        self._names = layout.schema.names if isinstance(root, RecordType) else None
        self._readers = [_reader(slot) for slot in layout.fields]

    def decode(self, values: pa.Array) -> Decoded:
        """Decode `binary` values; nulls are in neither the batch nor the errors."""
        columns: list[list[Any]] = [[] for _ in self._readers]
        rows: list[int] = []
        errors: list[BadDatum] = []
        for row, value in enumerate(values.to_pylist()):
            if value is None:
                continue
            try:
                read = self._read(value)
            except (ValueError, RecursionError, ArithmeticError) as error:
                errors.append(BadDatum(row, str(error), None))
                continue
            rows.append(row)
            for column, one in zip(columns, read, strict=True):
                column.append(one)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self.schema, strict=True)]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self.schema)
        return Decoded(batch, None if len(rows) == len(values) else pa.array(rows, pa.int64()), errors)

    def _read(self, value: bytes) -> list[Any]:
        # NaN and its like are floats then, which no column takes.
        document = json.loads(value, parse_float=Decimal, parse_constant=float)
        if self._names is None:
            return [self._readers[0](document)]
        if not isinstance(document, dict):
            _raise(f"the value is no JSON object: {_shown(document)}")
        return [read(document.get(name)) for name, read in zip(self._names, self._readers, strict=True)]


def _is_plain(slot: Slot) -> bool:
    """Whether pyarrow's reader of JSON has the column."""
    node = slot.node
    return not (
        slot.is_raw
        or slot.branches
        or isinstance(node, (EnumType, MapType))
        or pt.is_fixed_size_binary(slot.type)
        # It takes more digits than there may be.
        or pt.is_decimal(slot.type)
        or slot.node.props.get(UNREAD) == "decimal"
        or pt.is_null(slot.type)
    )


def _reader(slot: Slot) -> Read:
    """Return what makes a JSON value that of a column, and raises ValueError for one that is none."""
    if slot.is_raw:
        raise UnsupportedSchemaError(
            f"{slot.path} is a {slot.node.label} within a {slot.node.label}, and no JSON is read into such a column;"
            ' take value.format = "raw" for these values, or leave the field out of the schema'
        )
    read = _of_union(slot) if slot.branches else _of_type(slot)
    path, nullable = slot.path, slot.nullable or pt.is_null(slot.type)

    def checked(value: Any) -> Any:
        if value is None:
            if nullable:
                return None
            raise ValueError(f"{path} is not there, or null")
        return read(value)

    return checked


def _of_union(slot: Slot) -> Read:
    branches = {branch.label: _reader(child) for branch, child in zip(slot.branches, slot.children, strict=True)}

    def read(value: Any) -> Any:
        if isinstance(value, dict) and len(value) == 1:
            (label,) = value
            if label in branches:
                return {label: branches[label](value[label])}
        for label, branch in branches.items():
            try:
                return {label: branch(value)}
            except (ValueError, ArithmeticError):
                continue
        raise ValueError(f"{slot.path}: {_shown(value)} is none of {', '.join(branches)}")

    return read


def _of_type(slot: Slot) -> Read:
    type_, node, path = slot.type, slot.node, slot.path
    unread = node.props.get(UNREAD, "")
    if isinstance(node, MapType):
        item = _reader(slot.children[0].children[1])
        return _typed(
            dict, lambda value: [(_text(name, path), item(one)) for name, one in value.items()], path, "an object"
        )
    if isinstance(node, EnumType):
        symbols = frozenset(node.symbols)
        return _typed(str, lambda value: value if value in symbols else _raise(f"{path} has no {_shown(value)}"), path)
    if pt.is_struct(type_):
        fields = {field.name: _reader(child) for field, child in zip(type_, slot.children, strict=True)}
        return _typed(
            dict, lambda value: {name: read(value.get(name)) for name, read in fields.items()}, path, "an object"
        )
    if pt.is_list(type_):
        item = _reader(slot.children[0])
        return _typed(list, lambda value: [item(one) for one in value], path, "an array")
    if pt.is_boolean(type_):
        return _typed(bool, lambda value: value, path, "true or false")
    if unread.endswith("timestamp-nanos"):
        return _time(pa.timestamp("ns"), path)
    if pt.is_integer(type_):
        return _whole(type_, path)
    if pt.is_floating(type_):
        return _floating(type_, path)
    if pt.is_timestamp(type_) or pt.is_date(type_):
        return _time(type_, path)
    if pt.is_decimal(type_):
        return _decimal(type_.precision, type_.scale, path)
    if pt.is_string(type_):
        return _typed(str, lambda value: _text(value, path), path)
    size = type_.byte_width if pt.is_fixed_size_binary(type_) else None
    if unread == "decimal":
        return _decimal_bytes(node.props["precision"], node.props.get("scale", 0), size, path)
    return _typed(str, lambda value: _sized(_text(value, path).encode(), size, path), path)


def _typed(kinds: Any, make: Read, path: str, said: str = "text") -> Read:
    def read(value: Any) -> Any:
        # To Python true is a number.
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            raise ValueError(f"{path}: {_shown(value)} is not {said}")
        return make(value)

    return read


def _whole(type_: pa.DataType, path: str) -> Read:
    bits = type_.bit_width - (0 if pt.is_unsigned_integer(type_) else 1)
    least = 0 if pt.is_unsigned_integer(type_) else -(1 << bits)

    def make(value: int) -> int:
        if not least <= value < 1 << bits:
            raise ValueError(f"{path}: {value} takes more than {type_.bit_width} bits")
        return value

    return _typed(int, make, path, "a whole number")


def _floating(type_: pa.DataType, path: str) -> Read:
    end = _FLOAT_END if type_.bit_width == 32 else math.inf

    def make(value: int | Decimal) -> float:
        number = float(value)
        if abs(number) >= end:
            raise ValueError(f"{path}: {_shown(value)} is more than {type_.bit_width} bits hold")
        return number

    return _typed((int, Decimal), make, path, "a number")


def _time(type_: pa.DataType, path: str) -> Read:
    if pt.is_date(type_):
        number = _whole(pa.int32(), path)
        parse: Callable[[str], int] = lambda text: (datetime.date.fromisoformat(text) - _EPOCH.date()).days  # noqa: E731
    else:
        number = _whole(pa.int64(), path)
        per_second = _UNITS_PER_S[type_.unit]

        def parse(text: str) -> int:
            text, nanoseconds = _without_nanoseconds(text) if type_.unit == "ns" else (text, 0)
            time = datetime.datetime.fromisoformat(text)
            since = (time if time.tzinfo is not None else time.replace(tzinfo=datetime.UTC)) - _EPOCH
            return since // _MICROSECOND * per_second // 1_000_000 + nanoseconds

    def read(value: Any) -> int:
        if not isinstance(value, str):
            return int(number(value))
        try:
            parsed = parse(value)
        except ValueError as error:
            raise ValueError(f"{path}: {_shown(value)} is no {'date' if pt.is_date(type_) else 'time'}") from error
        # In nanoseconds there is no year 2263.
        return int(number(parsed))

    return read


def _without_nanoseconds(text: str) -> tuple[str, int]:
    """Return a time up to its microseconds, which is all that datetime has, and the nanoseconds behind them."""
    found = _BEHIND_MICROSECONDS.search(text)
    if found is None:
        return text, 0
    digits = found[1]
    if digits[3:].strip("0"):
        raise ValueError(f"{digits} is less than a nanosecond")
    return text[: found.start(1)] + text[found.end(1) :], int(digits[:3].ljust(3, "0"))


def _decimal(precision: int, scale: int, path: str) -> Read:
    quantum = Decimal(1).scaleb(-scale)
    exact = Context(prec=precision + 1)

    def make(value: Any) -> Decimal:
        try:
            found = Decimal(value)
        except InvalidOperation as error:
            raise ValueError(f"{path}: {_shown(value)} is no number") from error
        digits = found.as_tuple()
        if not isinstance(digits.exponent, int):
            _raise(f"{path}: {_shown(value)} is no number")
        if len(digits.digits) + digits.exponent + scale > precision:
            raise ValueError(f"{path}: {value} has more than {precision} digits")
        made = found.quantize(quantum, context=exact)
        if made != found:
            raise ValueError(f"{path}: {value} has more than {scale} digits behind the point")
        return made

    return _typed((int, str, Decimal), make, path, "a number")


def _decimal_bytes(precision: int, scale: int, size: int | None, path: str) -> Read:
    """Two's complement of the digits, the greatest byte first, of `size` bytes or as few as hold it."""
    number = _decimal(precision, scale, path)

    def read(value: Any) -> bytes:
        sign, digits, _ = number(value).as_tuple()
        unscaled = int("".join(map(str, digits)))
        signed = -unscaled if sign else unscaled
        bits = (signed if signed >= 0 else ~signed).bit_length()
        return signed.to_bytes(size or bits // 8 + 1, "big", signed=True)

    return read


def _text(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{path} has half of a surrogate pair at character {error.start}") from error
    return value


def _sized(content: bytes, size: int | None, path: str) -> bytes:
    if size is not None and len(content) != size:
        raise ValueError(f"{path} has {len(content)} bytes, not {size}")
    return content


def _raise(sentence: str) -> NoReturn:
    raise ValueError(sentence)


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
