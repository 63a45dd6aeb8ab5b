"""Source that decodes one class in one version. See `codec` for what it does and why."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from millstream.core.wire.fields import SCALARS, Field, Message
from millstream.core.wire.runtime import ARRAY_UNPACKERS, REQUEST_ELEMENTS_MAX
from millstream.core.wire.source import Source, element_size_min, present, run_label, tagged


class DecodeSource(Source):
    """Builds `decode(data, p)`, for a bytes object or, with `view`, for a memoryview of anything else.

    Variables: `data`, `end` its length, `p` the position, `room` the elements that a request may still have; o objects,
    l lists, n lengths and counts, q ends of lengths.
    """

    def __init__(self, cls: type[Message], version: int, *, view: bool = False) -> None:
        super().__init__(cls, version)
        self._view = view
        # Neighbouring fields of fixed width, as (struct letter, target, label): read by one unpack when something of
        # another kind follows, whose length comes along as the last of them.
        self._run: list[tuple[str, str, str]] = []

    def function(self) -> Any:
        """Build and compile the whole."""
        self._struct(self.cls, "o", self.cls.__name__)
        before, first = [], ["end = len(data)"]
        if not self._view:
            self.names["decode_view"] = self._view_decoder()
            before = ["if type(data) is not bytes:", "    return decode_view(memoryview(data), p)"]
        if any("room" in line for line in self.lines):
            first.append(f"room = {REQUEST_ELEMENTS_MAX}")
        if any("view[" in line for line in self.lines):
            first.append("view = data" if self._view else "view = memoryview(data)")
        return self.compile("def decode(data, p=0, /):", before=before, first=first, last="return o, p", position="p")

    def _view_decoder(self) -> Callable[[memoryview, int], Any]:
        """The twin for what is no bytes object, made when the first one comes."""
        made: Any = None

        def decode_view(data: memoryview, position: int) -> Any:
            nonlocal made
            if made is None:
                made = DecodeSource(self.cls, self.version, view=True).function()
            return made(data, position)

        return decode_view

    def _read(self, letter: str, target: str, label: str) -> None:
        self._run.append((letter, target, label))

    def _flush(self) -> None:
        """Read the run."""
        if not self._run:
            return
        letters = "".join(letter for letter, _, _ in self._run)
        targets = ", ".join(target for _, target, _ in self._run)
        label = run_label([label for _, _, label in self._run])
        if letters == "B":
            self.add(f"{targets} = data[p]", label)
        elif letters == "?":
            self.add(f"{targets} = data[p] != 0", label)
        else:
            comma = "," if len(self._run) == 1 else ""
            self.add(f"{targets}{comma} = {self.structure('unpack_from', letters)}(data, p)", label)
        self.add(f"p += {struct.calcsize('>' + letters)}", label)
        self._run.clear()

    def _length(self, letter: str, label: str) -> str:
        """Read a length or count along with the run before it; a compact one is still one more than it says."""
        name = f"n{self.number()}"
        self._read("B" if self.flexible else letter, name, label)
        self._flush()
        return name

    def _null(self, length: str, target: str, label: str, *, nullable: bool) -> None:
        """Take the null of a length or count, and open the branch for what is none, where a long varint is read on."""
        self.add(f"if {length} == {0 if self.flexible else -1}:", label)
        self.depth += 1
        self.add(f"{target} = None" if nullable else "raise bad_null()", label)
        self.depth -= 1
        self.add("else:", label)
        self.depth += 1
        if self.flexible:
            self.add(f"if {length} > 127: {length}, p = unsigned_varint(data, p - 1)", label)

    def _struct(self, cls: type[Message], target: str, path: str) -> None:
        """Make an object of `cls` in the variable `target`, and fill it."""
        self.add(f"{target} = new({self.constant('T', cls)})", path)
        read = present(cls, self.version)
        for field in cls.__wire__.fields:
            if field not in read:
                self.add(f"{target}.{field.name} = {self._default(field)}", f"{path}.{field.name}")
        for field in read:
            self._field(field, f"{target}.{field.name}", f"{path}.{field.name}")
        if self.flexible:
            self._tags(cls, target, path)
        self._flush()

    def _default(self, field: Field) -> str:
        if field.factory is None:
            return repr(field.default)
        return "[]" if field.factory is list else f"{self.constant('F', field.factory)}()"

    def _tags(self, cls: type[Message], target: str, path: str) -> None:
        known, label = tagged(cls, self.version), f"{path} tags"
        number = self.number()
        tags, tag, size, stop = f"k{number}", f"t{number}", f"s{number}", f"e{number}"
        if not known and not self._run:
            self.add("if data[p]: p = skip_tags(data, p, end)", label)
            self.add("else: p += 1", label)
            return
        self._read("B", tags, label)
        self._flush()
        if not known:
            self.add(f"if {tags}: p = skip_tags(data, p - 1, end)", label)
            return
        self.add(f"if {tags}:", label)
        self.depth += 1
        self.add(f"if {tags} > 127: {tags}, p = unsigned_varint(data, p - 1)", label)
        self.add(f"for _ in range({tags}):", label)
        self.depth += 1
        self.add(f"{tag}, p = unsigned_varint(data, p)", label)
        self.add(f"{size}, p = unsigned_varint(data, p)", label)
        self.add(f"{stop} = p + {size}", label)
        self.add(f"if {stop} > end: raise overrun({size}, end - p)", label)
        for field in known:
            label = f"{path}.{field.name}"
            self.add(f"if {tag} == {field.tag}:", label)
            self.depth += 1
            self._field(field, f"{target}.{field.name}", label)
            self._flush()
            self.add(f'if p != {stop}: raise ValueError(f"its {{{size}}} bytes hold something else")', label)
            self.depth -= 1
        self.add(f"p = {stop}", path)
        self.depth -= 2

    def _field(self, field: Field, target: str, label: str) -> None:
        nullable = self.version in field.nullable
        if field.is_array:
            self._array(field, target, label, nullable=nullable)
        elif field.kind in SCALARS:
            self._read(SCALARS[field.kind][0], target, label)
        elif field.kind == "struct":
            self._nested(field, target, label, nullable=nullable and field.tag is None)
        else:
            self._variable(field.kind, target, label, nullable=nullable)

    def _nested(self, field: Field, target: str, label: str, *, nullable: bool) -> None:
        """A struct that is no array's element; a nullable one has a byte before it, -1 for null."""
        number = self.number()
        if nullable:
            self._read("b", f"m{number}", label)
        self._flush()
        if nullable:
            self.add(f"if m{number} < 0: {target} = None", label)
            self.add("else:", label)
            self.depth += 1
        self._struct(field.struct_class(), f"o{number}", label)
        self.add(f"{target} = o{number}", label)
        if nullable:
            self.depth -= 1

    def _variable(self, kind: str, target: str, label: str, *, nullable: bool) -> None:
        """A string, bytes or record bytes: a length, then so many bytes."""
        size = self._length("h" if kind == "str" else "i", label)
        self._null(size, target, label, nullable=nullable)
        stop = f"q{self.number()}"
        if self.flexible:
            self.add(f"{stop} = p + {size} - 1", label)
            self.add(f"if {stop} > end: raise overrun({size} - 1, end - p)", label)
        else:
            self.add(f"{stop} = p + {size}", label)
            self.add(f"if {stop} > end or {size} < 0: raise overrun({size}, end - p)", label)
        if kind == "str":
            text = f'str(data[p:{stop}], "utf-8")' if self._view else f"data[p:{stop}].decode()"
            self.add(f"{target} = {text}", label)
        else:
            self.add(f"{target} = " + (f"bytes(data[p:{stop}])" if kind == "bytes" else f"view[p:{stop}]"), label)
        self.add(f"p = {stop}", label)
        self.depth -= 1

    def _array(self, field: Field, target: str, label: str, *, nullable: bool) -> None:
        number = self._length("i", label)
        self._null(number, target, label, nullable=nullable)
        if self.flexible:
            self.add(f"{number} -= 1", label)
        size = element_size_min(field, self.version, flexible=self.flexible)
        least = number if size == 1 else f"{number} * {size}"
        negative = "" if self.flexible else f" or {number} < 0"
        self.add(f"if {least} > end - p{negative}: raise overcount({number}, end - p)", label)
        if self.cls.__wire__.is_request:
            self.add(f"room -= {number}", label)
            self.add("if room < 0: raise overcrowded()", label)
        if field.kind in SCALARS and field.kind != "uuid":
            letter, width = SCALARS[field.kind]
            unpackers = self.constant("A", ARRAY_UNPACKERS[letter])
            self.add(f"{target} = list({unpackers}[{number}](data, p))", label)
            self.add(f"p += {number}" + (f" * {width}" if width > 1 else ""), label)
        else:
            self._elements(field, target, label, number)
        self.depth -= 1

    def _elements(self, field: Field, target: str, label: str, number: str) -> None:
        """An array read element by element."""
        items, item = f"l{self.number()}", f"o{self.number()}"
        self.add(f"{target} = {items} = []", label)
        self.add(f"for _ in ONCE if {number} == 1 else range({number}):", label)
        self.depth += 1
        if field.kind == "struct":
            self._struct(field.struct_class(), item, f"{label}[]")
        elif field.kind in SCALARS:
            self._read(SCALARS[field.kind][0], item, f"{label}[]")
            self._flush()
        else:
            self._variable(field.kind, item, f"{label}[]", nullable=False)
        self.add(f"{items}.append({item})", label)
        self.depth -= 1
