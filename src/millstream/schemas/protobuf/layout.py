"""The Arrow columns of a Protobuf message, and how each is read out of many messages at once.

    double, float               double, float           message, group            struct
    int32, sint32, sfixed32     int32                   repeated T                list<T>
    int64, sint64, sfixed64     int64                   map<K, V>                 map<K, V>
    uint32, fixed32             uint32                  enum                      dictionary<int32, string>
    uint64, fixed64             uint64                  google.protobuf.
    bool                        bool                      Timestamp               timestamp[us, UTC]
    string, bytes               string, binary            Int64Value and its kin  T with nulls
                                                          Struct, Value, ListValue    string, as JSON

A field is null where it is not set and Protobuf can tell: messages, `optional` fields, all of proto2, members of a
oneof. Others have their default. An enum's number without a name is its digits. A message that holds itself has no
Arrow type: it is refused, or kept as the binary that Protobuf makes of it.

Where a type is asked for, that is made of what is there: a column of other numbers or of another unit by a cast, an
enum's numbers, a message as binary or (string) as JSON. A field that the message lacks is null.

Columns are read one after the other out of a list of messages: so each takes one loop, inside of `map` or a
comprehension, and one conversion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToJson
from google.protobuf.json_format import SerializeToJsonError as UnprintableError
from google.protobuf.message_factory import GetMessageClass

from millstream.schemas.avro.decoder import OnRecursion
from millstream.schemas.avro.layout import COLUMNS_MAX, NESTING_MAX, UnsupportedSchemaError
from millstream.schemas.parsing import ParsedSchema
from millstream.schemas.serdes.framing import MessagePath
from millstream.schemas.serdes.protobuf import message_at

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, EnumDescriptor
    from google.protobuf.message import Message

Read: TypeAlias = Callable[[Sequence[Any]], pa.Array]
"""Makes a column of messages, or of values that lie in them."""

_SCALARS: Final = {
    FieldDescriptor.TYPE_DOUBLE: pa.float64(),
    FieldDescriptor.TYPE_FLOAT: pa.float32(),
    FieldDescriptor.TYPE_INT32: pa.int32(),
    FieldDescriptor.TYPE_SINT32: pa.int32(),
    FieldDescriptor.TYPE_SFIXED32: pa.int32(),
    FieldDescriptor.TYPE_INT64: pa.int64(),
    FieldDescriptor.TYPE_SINT64: pa.int64(),
    FieldDescriptor.TYPE_SFIXED64: pa.int64(),
    FieldDescriptor.TYPE_UINT32: pa.uint32(),
    FieldDescriptor.TYPE_FIXED32: pa.uint32(),
    FieldDescriptor.TYPE_UINT64: pa.uint64(),
    FieldDescriptor.TYPE_FIXED64: pa.uint64(),
    FieldDescriptor.TYPE_BOOL: pa.bool_(),
    FieldDescriptor.TYPE_STRING: pa.string(),
    FieldDescriptor.TYPE_BYTES: pa.binary(),
}
_TIMESTAMP: Final = "google.protobuf.Timestamp"
_WRAPPERS: Final = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_JSON: Final = frozenset(f"google.protobuf.{name}" for name in ("Struct", "Value", "ListValue"))
_UNITS_PER_S: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def protobuf_to_arrow_schema(
    schema: ParsedSchema, message: str | None = None, *, on_recursion: OnRecursion = "refuse"
) -> pa.Schema:
    """Return the columns of a message of a schema, its first one unless named. Raises UnsupportedSchemaError."""
    return Layout(descriptor_of(schema, message), on_recursion=on_recursion).schema


def descriptor_of(schema: ParsedSchema, message: str | None) -> Descriptor:
    """Return the message of that full name, or the first. Raises UnsupportedSchemaError where there is none."""
    return descriptor_at(schema, path_of(schema, message))


def path_of(schema: ParsedSchema, message: str | None) -> MessagePath:
    """Return where the message of that full name is, or the first. Raises UnsupportedSchemaError if there is none."""
    file = cast("Any", schema).file_descriptor
    messages, path = list(file.message_type), [0]
    if message is not None:
        path.clear()
        for name in message.removeprefix(f"{file.package}." if file.package else "").split("."):
            names = [one.name for one in messages]
            if name not in names:
                raise UnsupportedSchemaError(f"the schema has no message {message!r}")
            path.append(names.index(name))
            messages = list(messages[path[-1]].nested_type)
    elif not messages:
        raise UnsupportedSchemaError("the schema has no message")
    return tuple(path)


def message_count(schema: ParsedSchema) -> int:
    """Return how many messages the schema has, those within others left aside."""
    return len(cast("Any", schema).file_descriptor.message_type)


def descriptor_at(schema: ParsedSchema, path: MessagePath) -> Descriptor:
    """Return the message that a path of indexes leads to. Raises UnsupportedSchemaError."""
    try:
        return message_at(schema, path)
    except ValueError as error:
        raise UnsupportedSchemaError(str(error)) from error


class Layout:
    """The columns of one message type, and their readers."""

    def __init__(
        self, message: Descriptor, columns: pa.Schema | None = None, *, on_recursion: OnRecursion = "refuse"
    ) -> None:
        """Lay out all fields, or the `columns` that are asked for. Raises UnsupportedSchemaError."""
        self._raw_recursion = on_recursion == "binary"
        self._count = 0
        self._open = [message.full_name]
        self._reads: list[Read] = []
        fields = []
        wanted = [(field.name, field.type) for field in columns] if columns is not None else None
        for name, type_ in wanted or [(field.name, None) for field in message.fields if wanted is None]:
            found, read = self._member(message, name, type_, name)
            fields.append(found)
            self._reads.append(read)
        self.schema = pa.schema(fields) if columns is None else columns
        self.has_required = _has_required(message)

    def batch(self, messages: Sequence[Message]) -> pa.RecordBatch:
        """Return the columns of messages. Raises ValueError or pyarrow's errors where a value cannot be one."""
        if not self._reads:
            return pa.RecordBatch.from_struct_array(pa.Array.from_buffers(pa.struct([]), len(messages), [None]))
        return pa.RecordBatch.from_arrays([read(messages) for read in self._reads], schema=self.schema)

    def _member(self, message: Descriptor, name: str, wanted: pa.DataType | None, path: str) -> tuple[pa.Field, Read]:
        """Return a field of a message as a column, and what reads it out of such messages."""
        self._count += 1
        if self._count > COLUMNS_MAX:
            raise UnsupportedSchemaError(f"the message has more than {COLUMNS_MAX} columns, at {path}; project it")
        field = message.fields_by_name.get(name)
        if field is None:
            assert wanted is not None, f"{message.full_name} has no {name}"
            return pa.field(name, wanted), lambda messages: pa.nulls(len(messages), wanted)
        get = attrgetter(name)
        if field.is_repeated:
            type_, read = self._many(field, wanted, path)
            return pa.field(name, type_, nullable=False), lambda messages: read(list(map(get, messages)))
        type_, read = self._one(field, wanted, path)
        if not field.has_presence:
            return pa.field(name, type_, nullable=False), lambda messages: read(list(map(get, messages)))

        def read_present(messages: Sequence[Message]) -> pa.Array:
            return read([get(message) if message.HasField(name) else None for message in messages])

        return pa.field(name, type_), read_present

    def _many(self, field: FieldDescriptor, wanted: pa.DataType | None, path: str) -> tuple[pa.DataType, Read]:
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            return self._map(entry, wanted, path)
        if wanted is not None and not pa.types.is_list(wanted):
            raise UnsupportedSchemaError(f"{path} is repeated, and {wanted} is asked for")
        item, read = self._one(field, None if wanted is None else wanted.value_type, f"{path}[]")
        type_ = pa.list_(pa.field("item", item, nullable=False)) if wanted is None else wanted

        def read_lists(containers: Sequence[Sequence[Any]]) -> pa.Array:
            items = read(list(chain.from_iterable(containers)))
            return pa.ListArray.from_arrays(_offsets(containers), items, type=type_)

        return type_, read_lists

    def _map(self, entry: Descriptor, wanted: pa.DataType | None, path: str) -> tuple[pa.DataType, Read]:
        if wanted is not None and not pa.types.is_map(wanted):
            raise UnsupportedSchemaError(f"{path} is a map, and {wanted} is asked for")
        content = entry.fields_by_name
        key, read_keys = self._one(content["key"], None if wanted is None else wanted.key_type, f"{path}[].key")
        value, read_values = self._one(
            content["value"], None if wanted is None else wanted.item_type, f"{path}[].value"
        )
        type_ = pa.map_(key, pa.field("value", value, nullable=False)) if wanted is None else wanted

        def read_maps(containers: Sequence[Any]) -> pa.Array:
            pairs = [pair for container in containers for pair in container.items()]
            keys, values = read_keys([key for key, _ in pairs]), read_values([value for _, value in pairs])
            return pa.MapArray.from_arrays(_offsets(containers), keys, values, type=type_)

        return type_, read_maps

    def _one(self, field: FieldDescriptor, wanted: pa.DataType | None, path: str) -> tuple[pa.DataType, Read]:
        """Return the type of single values, None among them where they can be missing, and what reads them."""
        if field.enum_type is not None:
            return _enum(field.enum_type, wanted, path)
        if field.message_type is None:
            return _cast_to(_SCALARS[field.type], wanted, path)
        message = field.message_type
        if message.full_name == _TIMESTAMP and not (wanted is not None and pa.types.is_nested(wanted)):
            return _timestamp(wanted, path)
        if message.full_name in _WRAPPERS:
            return self._wrapper(message, wanted, path)
        if message.full_name in _JSON and (wanted is None or not pa.types.is_nested(wanted)):
            return _cast_read(pa.string(), wanted, _as_json, path)
        if wanted is not None and (pa.types.is_string(wanted) or pa.types.is_large_string(wanted)):
            return _cast_read(pa.string(), wanted, _as_json, path)
        if wanted is not None and (pa.types.is_binary(wanted) or pa.types.is_large_binary(wanted)):
            return _cast_read(pa.binary(), wanted, _as_binary, path)
        return self._struct(message, wanted, path)

    def _wrapper(self, message: Descriptor, wanted: pa.DataType | None, path: str) -> tuple[pa.DataType, Read]:
        natural = _SCALARS[message.fields_by_name["value"].type]

        def read(values: Sequence[Any]) -> pa.Array:
            return pa.array([None if value is None else value.value for value in values], natural)

        return _cast_read(natural, wanted, read, path)

    def _struct(self, message: Descriptor, wanted: pa.DataType | None, path: str) -> tuple[pa.DataType, Read]:
        if wanted is not None and not pa.types.is_struct(wanted):
            raise UnsupportedSchemaError(f"{path} is a {message.full_name}, and {wanted} is asked for")
        if wanted is None and message.full_name in self._open:
            if not self._raw_recursion:
                raise UnsupportedSchemaError(
                    f"{path} is a {message.full_name} within a {message.full_name}: no Arrow type holds itself; ask for"
                    " columns without it, or have it as binary (on_recursion='binary')"
                )
            return pa.binary(), _as_binary
        if len(self._open) > NESTING_MAX:
            raise UnsupportedSchemaError(f"{path} lies deeper than {NESTING_MAX} levels; project it")
        self._open.append(message.full_name)
        names = [(field.name, None) for field in message.fields] if wanted is None else None
        members = [
            self._member(message, name, type_, f"{path}.{name}")
            for name, type_ in names or [(field.name, field.type) for field in wanted or ()]
        ]
        self._open.pop()
        fields = [field for field, _ in members] if wanted is None else list(wanted)
        empty = GetMessageClass(message)()

        def read(values: Sequence[Any]) -> pa.Array:
            is_null = [value is None for value in values]
            mask = None
            if True in is_null:
                mask = pa.array(is_null, pa.bool_())
                values = [empty if value is None else value for value in values]
            if not fields:
                valid = None if mask is None else pc.invert(mask).buffers()[1]
                return pa.Array.from_buffers(pa.struct([]), len(values), [valid])
            return pa.StructArray.from_arrays([read(values) for _, read in members], fields=fields, mask=mask)

        return pa.struct(fields) if wanted is None else wanted, read


def _offsets(containers: Sequence[Sequence[Any]]) -> pa.Array:
    return pa.array(accumulate(map(len, containers), initial=0), pa.int32())


def _cast_read(natural: pa.DataType, wanted: pa.DataType | None, read: Read, path: str) -> tuple[pa.DataType, Read]:
    if wanted is None or wanted == natural:
        return natural, read
    try:
        pa.array([], natural).cast(wanted)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise UnsupportedSchemaError(f"{path} is {natural}, and {wanted} is asked for") from error
    return wanted, lambda values: read(values).cast(wanted)


def _cast_to(natural: pa.DataType, wanted: pa.DataType | None, path: str) -> tuple[pa.DataType, Read]:
    return _cast_read(natural, wanted, lambda values: pa.array(values, natural), path)


def _enum(enum: EnumDescriptor, wanted: pa.DataType | None, path: str) -> tuple[pa.DataType, Read]:
    if wanted is not None and pa.types.is_integer(wanted):
        return _cast_to(pa.int32(), wanted, path)
    # Of several names for one number the first counts.
    names = {number: value.name for number, value in enum.values_by_number.items()}
    known = pa.array(names, pa.int32())
    words = pa.array(names.values(), pa.string())

    def read(values: Sequence[int | None]) -> pa.Array:
        numbers = pa.array(values, pa.int32())
        indexes = pc.index_in(numbers, value_set=known)
        if indexes.null_count == numbers.null_count:
            return pa.DictionaryArray.from_arrays(indexes, words)
        texts = [None if value is None else names.get(value, str(value)) for value in values]
        return pa.array(texts, pa.string()).dictionary_encode()

    return _cast_read(pa.dictionary(pa.int32(), pa.string()), wanted, read, path)


def _timestamp(wanted: pa.DataType | None, path: str) -> tuple[pa.DataType, Read]:
    if wanted is None:
        wanted = pa.timestamp("us", "UTC")
    type_ = wanted if pa.types.is_timestamp(wanted) else pa.timestamp("us", "UTC")
    per_s = _UNITS_PER_S[type_.unit]

    def read(values: Sequence[Any]) -> pa.Array:
        seconds = pa.array([None if value is None else value.seconds for value in values], pa.int64())
        nanos = pa.array([None if value is None else value.nanos for value in values], pa.int64())
        # Nanoseconds count forward, also before 1970.
        units = pc.add_checked(pc.multiply_checked(seconds, per_s), pc.divide(nanos, 10**9 // per_s))
        return units.cast(type_)

    return _cast_read(type_, wanted, read, path)


def _as_json(values: Sequence[Any]) -> pa.Array:
    try:
        return pa.array([None if value is None else MessageToJson(value, indent=None) for value in values], pa.string())
    except UnprintableError as error:
        raise ValueError(f"it has no JSON: {error}") from error


def _as_binary(values: Sequence[Any]) -> pa.Array:
    return pa.array([None if value is None else value.SerializePartialToString() for value in values], pa.binary())


def _has_required(message: Descriptor) -> bool:
    """Return whether a message, or one within it, has fields that must be set."""
    seen, waiting = {message.full_name}, [message]
    while waiting:
        for field in waiting.pop().fields:
            if field.is_required:
                return True
            if field.message_type is not None and field.message_type.full_name not in seen:
                seen.add(field.message_type.full_name)
                waiting.append(field.message_type)
    return False
