"""A schema compiled for writing: which column goes where in a datum."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import pyarrow as pa

from millstream.schemas._kernels import opcodes as op
from millstream.schemas.avro.defaults import encode_default
from millstream.schemas.avro.layout import Layout, Slot
from millstream.schemas.avro.unwrapping import unwrapped_type
from millstream.schemas.parsing.avro_types import (
    ArrayType,
    AvroType,
    EnumType,
    FixedType,
    MapType,
    RecordType,
    UnionType,
)


class WriteProgram:
    """Instructions that write datums of a schema from columns of one Arrow type.

    `checked`: values that must not be null are looked at; without it the caller knows that none is.
    """

    def __init__(self, root: AvroType, layout: Layout, type_: pa.DataType, prefix: bytes, *, checked: bool) -> None:
        """Raises ValueError where the schema has a field that neither the type nor a default has."""
        self.code = array("i")
        self.tables = array("i")
        self.pool = bytearray(prefix)
        self.paths: list[str] = []
        # Where in the kernel's table the addresses stand that instructions read at, and whose columns those are.
        self.reads: dict[int, str] = {}
        self._checked = checked
        if isinstance(root, RecordType):
            self._fields(root, layout.fields, type_)
        elif prefix and root.kind == "bytes":
            # Confluent's serializers write bytes alone without a length before them.
            raise ValueError("bytes alone need no encoding: send them behind the prefix as they are")
        else:
            self._value(root, layout.fields[0], type_)
        self._emit("", op.WRITE_END)

    def _emit(self, path: str, code: int, column: int = -1, a: int = 0, b: int = 0) -> int:
        field = _READS.get(code)
        if field is not None:
            self.reads[column * op.SOURCE_FIELDS + field] = path
        self.code.extend((code, column, a, b))
        self.paths.append(path)
        return len(self.code) - 4

    def _fields(self, record: RecordType, slots: list[Slot], type_: pa.DataType) -> None:
        for field, slot in zip(record.fields, slots, strict=True):
            index = type_.get_field_index(field.name)
            if index >= 0:
                self._value(field.type, slot, type_.field(index).type)
                continue
            nulls = [at for at, branch in enumerate(_branches(field.type)) if branch.kind == "null"]
            if field.has_default:
                content = encode_default(field.type, field.default)
            elif field.type.kind == "null":
                content = b""
            elif nulls:
                content = bytes([2 * nulls[0]])
            else:
                raise ValueError(f"no column is named {slot.path}, which the schema has without a default")
            self._emit(slot.path, op.WRITE_CONSTANT, -1, len(self.pool), len(content))
            self.pool += content

    def _value(self, node: AvroType, slot: Slot, type_: pa.DataType) -> None:
        """Write a value of any type, null among them."""
        branches = _branches(node)
        if not branches:
            if self._checked and slot.kind != op.KIND_NULL:
                self._emit(slot.path, op.WRITE_REQUIRED, slot.index)
            self._present(node, slot, type_)
            return
        others = [at for at, branch in enumerate(branches) if branch.kind != "null"]
        if len(others) > 1:
            self._choice(branches, slot, type_)
        elif len(branches) == 2:
            at = self._emit(slot.path, op.WRITE_NULLABLE, slot.index, 1 - others[0])
            self._present(branches[others[0]], slot, type_)
            self.code[at + 3] = len(self.code)
        else:
            if self._checked and others:
                self._emit(slot.path, op.WRITE_REQUIRED, slot.index)
            self._emit(slot.path, op.WRITE_BRANCH, -1, 0)
            self._present(branches[0], slot, type_)

    def _choice(self, branches: list[AvroType], slot: Slot, type_: pa.DataType) -> None:
        """Write the branch of a union whose column, of those in the struct, is not null."""
        type_ = unwrapped_type(type_, slot.type)
        at = self._emit(slot.path, op.WRITE_CHOICE)
        entries: list[int] = []
        jumps = []
        children = iter(slot.children)
        null = -1
        for number, branch in enumerate(branches):
            if branch.kind == "null":
                null = number
                continue
            child = next(children)
            index = type_.get_field_index(branch.label) if pa.types.is_struct(type_) else -1
            if index < 0:
                continue
            entries += [child.index, len(self.code)]
            self._emit(child.path, op.WRITE_BRANCH, -1, number)
            self._present(branch, child, type_.field(index).type)
            jumps.append(self._emit(child.path, op.WRITE_JUMP))
        if null >= 0:
            entries += [-1, len(self.code)]
            self._emit(slot.path, op.WRITE_BRANCH, -1, null)
        self.code[at + 2], self.code[at + 3] = len(self.tables), len(entries) // 2
        self.tables.extend(entries)
        for jump in jumps:
            self.code[jump + 2] = len(self.code)

    def _present(self, node: AvroType, slot: Slot, type_: pa.DataType) -> None:
        """Write a value that is not null."""
        type_ = unwrapped_type(type_, slot.type)
        if slot.is_raw:
            self._emit(slot.path, op.WRITE_RAW, slot.index)
        elif isinstance(node, RecordType):
            if not pa.types.is_struct(type_):
                raise ValueError(f"{slot.path} is {type_}, and the schema has {slot.type} there")
            self._fields(node, slot.children, type_)
        elif isinstance(node, ArrayType):
            item = getattr(type_, "value_type", pa.null())
            self._list(slot, lambda: self._value(node.items, slot.children[0], item))
        elif isinstance(node, MapType):
            self._list(slot, lambda: self._entry(node, slot.children[0], type_))
        elif isinstance(node, EnumType):
            self._emit(slot.path, op.WRITE_ENUM, slot.index)
        elif pa.types.is_decimal(slot.type):
            size = node.size if isinstance(node, FixedType) else 0
            self._emit(slot.path, op.WRITE_DECIMAL, slot.index, slot.width, size)
        elif isinstance(node, FixedType):
            if slot.kind == op.KIND_STRUCT:
                for child in slot.children:
                    if self._checked:
                        self._emit(child.path, op.WRITE_REQUIRED, child.index)
                    self._emit(child.path, op.WRITE_WORD, child.index, 4)
            else:
                self._emit(slot.path, op.WRITE_FIXED, slot.index, node.size)
        elif node.kind in {"float", "double"}:
            self._emit(slot.path, op.WRITE_WORD, slot.index, slot.width)
        elif node.kind != "null":
            self._emit(slot.path, _WRITES[node.kind], slot.index)

    def _list(self, slot: Slot, write_item: Callable[[], None]) -> None:
        at = self._emit(slot.path, op.WRITE_BLOCKS, slot.index)
        body = len(self.code)
        write_item()
        self._emit(slot.path, op.WRITE_NEXT, -1, body)
        self.code[at + 2] = len(self.code)

    def _entry(self, node: MapType, entries: Slot, type_: pa.DataType) -> None:
        key, value = entries.children
        if self._checked:
            self._emit(key.path, op.WRITE_REQUIRED, key.index)
        self._emit(key.path, op.WRITE_BYTES, key.index)
        self._value(node.values, value, getattr(type_, "item_type", pa.null()))


_READS = {
    op.WRITE_BOOLEAN: op.SOURCE_DATA,
    op.WRITE_INT: op.SOURCE_DATA,
    op.WRITE_LONG: op.SOURCE_DATA,
    op.WRITE_WORD: op.SOURCE_DATA,
    op.WRITE_FIXED: op.SOURCE_DATA,
    op.WRITE_ENUM: op.SOURCE_DATA,
    op.WRITE_DECIMAL: op.SOURCE_DATA,
    op.WRITE_BYTES: op.SOURCE_OFFSETS,
    op.WRITE_RAW: op.SOURCE_OFFSETS,
    op.WRITE_BLOCKS: op.SOURCE_OFFSETS,
}
_WRITES = {
    "boolean": op.WRITE_BOOLEAN,
    "int": op.WRITE_INT,
    "long": op.WRITE_LONG,
    "bytes": op.WRITE_BYTES,
    "string": op.WRITE_BYTES,
}


def _branches(node: AvroType) -> list[AvroType]:
    return node.branches if isinstance(node, UnionType) else []
