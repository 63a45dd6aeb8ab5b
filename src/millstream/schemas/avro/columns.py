"""The buffers that the kernel fills, from Arrow's memory pool, and the arrays they become.

One table of int64s for the kernel (`Column` in native.h), and beside it the buffers whose addresses it holds. Columns
of the rows themselves have room for every row; text, bytes and list items for as many as the batches before had for
each row, and more when the kernel asks.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Final

import pyarrow as pa

from millstream.schemas._kernels import opcodes as op
from millstream.schemas.avro.layout import Layout, Slot
from millstream.schemas.parsing.avro_types import EnumType

_INT32_MAX: Final = 2**31 - 1
_BYTES_PER_ROW: Final = 24  # of text, until there was a batch to learn from
_SCALES: Final = (1.0, 0.3, 0.0)  # of the estimates, the next where they take more than the bound
_WIDTH_SMALL: Final = 32  # bytes: as large as any value gets that is no fixed
_SLACK_KEPT: Final = 4  # a buffer is cut where more than a quarter of it is unused


class DecodedTooLargeError(ValueError):
    """The columns of one batch would take more than their bound, or more than Arrow's 32-bit offsets can say."""


class Estimates:
    """How many items and bytes each column had for a row, of the largest batches lately."""

    def __init__(self, layout: Layout) -> None:
        self.values = [1.0] * len(layout.slots)
        self.bytes = [float(_BYTES_PER_ROW)] * len(layout.slots)

    def learn(self, table: array[int], rows: int) -> None:
        """Take a finished batch in."""
        if rows < 100:
            return
        for index in range(len(self.values)):
            at = index * op.COLUMN_FIELDS
            self.values[index] = max(table[at + op.FIELD_LENGTH] / rows, 0.9 * self.values[index])
            self.bytes[index] = max(table[at + op.FIELD_USED] / rows, 0.9 * self.bytes[index])


class ColumnBuffers:
    """The columns of one batch while they are filled."""

    def __init__(
        self, layout: Layout, rows: int, estimates: Estimates, *, input_bytes: int, size_bytes_max: int
    ) -> None:
        """Make room for `rows`, and for what lies in them by the estimates: hardly more than was put in."""
        self._layout = layout
        self._size_bytes_max = size_bytes_max
        self.table = array("q", bytes(8 * op.COLUMN_FIELDS * len(layout.slots)))
        self._data: list[pa.Buffer | None] = [None] * len(layout.slots)
        self._validity: list[pa.Buffer | None] = [None] * len(layout.slots)
        self._offsets: list[pa.Buffer | None] = [None] * len(layout.slots)
        # Bytes of all these buffers.
        self._held = 0
        for slot in layout.slots:
            at = slot.index * op.COLUMN_FIELDS
            self.table[at + op.FIELD_KIND] = slot.kind
            self.table[at + op.FIELD_WIDTH] = slot.width
            self.table[at + op.FIELD_PARENT] = slot.parent
            self.table[at + op.FIELD_CHILD] = self.table[at + op.FIELD_SIBLING] = -1
        for slot in layout.slots:
            if slot.kind == op.KIND_UNION:
                at = slot.index * op.COLUMN_FIELDS + op.FIELD_CHILD
                for child in slot.children:
                    self.table[at] = child.index
                    at = child.index * op.COLUMN_FIELDS + op.FIELD_SIBLING
        for scale in _SCALES:
            try:
                self._make_all(rows, estimates, input_bytes, scale)
                break
            except DecodedTooLargeError:
                # The columns may well fit though the estimates together do not.
                if scale == _SCALES[-1]:
                    raise

    def _make_all(self, rows: int, estimates: Estimates, input_bytes: int, scale: float) -> None:
        layout = self._layout
        for buffers in (self._data, self._validity, self._offsets):
            buffers[:] = [None] * len(layout.slots)
        self._held = 0
        per_row = _per_row(layout)
        for slot in layout.slots:
            count = rows
            if not per_row[slot.index]:
                count = min(int(rows * estimates.values[slot.index] * 1.1 * scale), input_bytes)
                if slot.width > _WIDTH_SMALL:
                    # A fixed: each takes as much of the input. Few of them may already be all the memory there is.
                    count = min(count, input_bytes // slot.width)
                else:
                    count += 16
            self._make_room(slot, min(count, _INT32_MAX - 1))
            if slot.kind == op.KIND_BYTES:
                room = min(int(rows * estimates.bytes[slot.index] * 1.05 * scale), input_bytes, 1 << 30) + 64
                self._make_byte_room(slot, room)

    def grow(self) -> None:
        """Make the room that the kernel asked for. Raises DecodedTooLargeError."""
        table, slots = self.table, self._layout.slots
        wanted = _asked(table[op.FIELD_WANTED :: op.COLUMN_FIELDS])
        rooms = _asked(table[op.FIELD_WANTED_ROOM :: op.COLUMN_FIELDS])
        # Forgotten even where it cannot be had: the row is given up then.
        for index, _ in wanted:
            table[index * op.COLUMN_FIELDS + op.FIELD_WANTED] = 0
        for index, _ in rooms:
            table[index * op.COLUMN_FIELDS + op.FIELD_WANTED_ROOM] = 0
        for index, count in wanted:
            capacity = table[index * op.COLUMN_FIELDS + op.FIELD_CAPACITY]
            if count > capacity:
                self._enlarge(self._make_room, slots[index], count, 2 * capacity)
        for index, size in rooms:
            room = table[index * op.COLUMN_FIELDS + op.FIELD_ROOM]
            if size > room:
                self._enlarge(self._make_byte_room, slots[index], size, 2 * room)

    def arrays(self, rows: int) -> list[pa.Array]:
        """Return the columns as arrays of so many rows; nothing is filled behind this."""
        return [self._array(slot, rows) for slot in self._layout.fields]

    def _enlarge(self, make_room: Callable[[Slot, int], None], slot: Slot, wanted: int, twice: int) -> None:
        if wanted >= _INT32_MAX:
            raise DecodedTooLargeError(
                "a column takes more than 2^31 - 1 items or bytes in one batch; decode fewer values at once"
            )
        enough = max(wanted, min(twice, _INT32_MAX - 1))
        try:
            make_room(slot, enough)
        except DecodedTooLargeError:
            if enough == wanted:
                raise
            make_room(slot, wanted)

    def _make_room(self, slot: Slot, count: int) -> None:
        at = slot.index * op.COLUMN_FIELDS
        table = self.table
        if slot.has_validity:
            buffer = self._validity[slot.index] = self._resized(self._validity[slot.index], count // 8 + 1)
            table[at + op.FIELD_VALIDITY] = buffer.address
        if slot.kind in {op.KIND_BYTES, op.KIND_LIST, op.KIND_UNION}:
            first = self._offsets[slot.index] is None
            buffer = self._offsets[slot.index] = self._resized(self._offsets[slot.index], 4 * (count + 1))
            table[at + op.FIELD_OFFSETS] = buffer.address
            if first:
                memoryview(buffer).cast("B")[:4] = bytes(4)
        size = {
            op.KIND_BITS: count // 8 + 1,
            op.KIND_FIXED: count * slot.width,
            op.KIND_UNION: count,
        }.get(slot.kind)
        if size is not None:
            buffer = self._data[slot.index] = self._resized(self._data[slot.index], max(size, 1))
            table[at + op.FIELD_DATA] = buffer.address
        table[at + op.FIELD_CAPACITY] = count

    def _make_byte_room(self, slot: Slot, size: int) -> None:
        at = slot.index * op.COLUMN_FIELDS
        buffer = self._data[slot.index] = self._resized(self._data[slot.index], size)
        self.table[at + op.FIELD_DATA] = buffer.address
        self.table[at + op.FIELD_ROOM] = size

    def _resized(self, buffer: pa.Buffer | None, size: int) -> pa.Buffer:
        more = size - (0 if buffer is None else buffer.size)
        if self._held + more > self._size_bytes_max:
            raise DecodedTooLargeError(
                f"the columns take more than {self._size_bytes_max} bytes; decode fewer values at once"
            )
        self._held += more
        if buffer is None:
            return pa.allocate_buffer(size, resizable=True)
        buffer.resize(size)
        return buffer

    def _array(self, slot: Slot, length: int) -> pa.Array:
        at = slot.index * op.COLUMN_FIELDS
        assert self.table[at + op.FIELD_LENGTH] in {length, 0} or slot.kind == op.KIND_NULL, f"{slot}: {length} values"
        validity = None
        if self.table[at + op.FIELD_NULLS]:
            validity = _cut(self._validity[slot.index], -(-length // 8))
        nulls = 0 if validity is None else -1
        data, offsets = self._data[slot.index], self._offsets[slot.index]
        if slot.kind == op.KIND_NULL:
            return pa.nulls(length)
        if slot.kind == op.KIND_BITS:
            return pa.Array.from_buffers(slot.type, length, [validity, _cut(data, -(-length // 8))], nulls)
        if slot.kind == op.KIND_FIXED:
            return self._fixed(slot, length, [validity, _cut(data, length * slot.width)], nulls)
        if slot.kind == op.KIND_BYTES:
            content = _cut(data, self.table[at + op.FIELD_USED])
            return pa.Array.from_buffers(slot.type, length, [validity, _cut(offsets, 4 * length + 4), content], nulls)
        children = [self._array(child, self._length(child)) for child in slot.children]
        if slot.kind == op.KIND_LIST:
            buffers = [validity, _cut(offsets, 4 * length + 4)]
            return pa.Array.from_buffers(slot.type, length, buffers, nulls, children=children)
        if slot.kind == op.KIND_STRUCT:
            return pa.Array.from_buffers(slot.type, length, [validity], nulls, children=children)
        buffers = [None, _cut(data, length), _cut(offsets, 4 * length)]
        return pa.Array.from_buffers(slot.type, length, buffers, 0, children=children)

    def _length(self, slot: Slot) -> int:
        return self.table[slot.index * op.COLUMN_FIELDS + op.FIELD_LENGTH]

    def _fixed(self, slot: Slot, length: int, buffers: list[pa.Buffer | None], nulls: int) -> pa.Array:
        if isinstance(slot.node, EnumType):
            numbers = pa.Array.from_buffers(pa.int32(), length, buffers, nulls)
            return pa.DictionaryArray.from_arrays(numbers, pa.array(slot.node.symbols, pa.string()), safe=False)
        if isinstance(slot.type, pa.UuidType):
            return pa.ExtensionArray.from_storage(
                slot.type, pa.Array.from_buffers(slot.type.storage_type, length, buffers, nulls)
            )
        return pa.Array.from_buffers(slot.type, length, buffers, nulls)


def _asked(column: array[int]) -> list[tuple[int, int]]:
    """Return which columns ask for something, and for how much: mostly one of all of them."""
    return [(index, number) for index, number in enumerate(column) if number]


def _per_row(layout: Layout) -> list[bool]:
    """Return for each column whether it holds exactly one value for a row."""
    found: list[bool] = []
    for slot in layout.slots:
        parent = layout.slots[slot.parent] if slot.parent >= 0 else None
        # A dense union's branches together have one.
        found.append(parent is None or (parent.kind in {op.KIND_STRUCT, op.KIND_UNION} and found[slot.parent]))
    return found


def _cut(buffer: pa.Buffer | None, size: int) -> pa.Buffer:
    assert buffer is not None
    if buffer.size - size > buffer.size // _SLACK_KEPT:
        buffer.resize(size, shrink_to_fit=True)
        return buffer
    return buffer.slice(0, size)
