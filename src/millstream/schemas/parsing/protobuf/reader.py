"""Reads .proto text into elements: proto2, proto3 and editions.

Written here because a registry reads what anybody posts: it must be quick (tens of microseconds for a small file, a
hundredth of what a grammar interpreted in Python takes), refuse what is wrong with line and column, and stay within
bounds. Tokens are made as they are needed, so that a large file never lies in memory as tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NoReturn

from millstream.schemas.parsing.json_text import NAME_CHARACTERS_MAX
from millstream.schemas.parsing.parsed_schema import InvalidSchemaError
from millstream.schemas.parsing.protobuf.elements import (
    MAX_FIELD_NUMBER,
    EnumConstant,
    EnumElement,
    ExtendElement,
    ExtensionsElement,
    FieldElement,
    GroupElement,
    MessageElement,
    OneOfElement,
    Option,
    ProtoFile,
    Reserved,
    ReservedElement,
    RpcElement,
    ServiceElement,
    Value,
)

BLOCK_DEPTH_MAX: Final = 50
"""How deep blocks and values nest: each level indents every line in it. Protobuf's own compiler ends at 32."""

_SPACE: Final = re.compile(r"(?:\s+|//[^\n]*+|/\*.*?\*/)*+", re.DOTALL)
_TOKEN: Final = re.compile(
    r"""(?P<word>\.?[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)
    | (?P<number>0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    | (?P<string>"(?:[^"\\\n]|\\.)*+"|'(?:[^'\\\n]|\\.)*+')
    | (?P<symbol>[{}()\[\]<>;=,:/.+-])""",
    re.VERBOSE | re.ASCII,
)
_NAME: Final = re.compile(r"[A-Za-z_]\w*\Z", re.ASCII)
_ESCAPE: Final = re.compile(
    r"\\(?:([abfnrtv?'\"\\])|[xX]([0-9a-fA-F]{1,2})|([0-7]{1,3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))"
)
_ESCAPED: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_LABELS: Final = frozenset(("optional", "required", "repeated"))


def read_proto(text: str) -> ProtoFile:
    """Return what the text of a .proto file says; raises InvalidSchemaError with line and column."""
    return _Reader(text).file()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._depth = 0
        # The token at hand: its kind ("end" behind the last), its text, and where it starts and ends.
        self._kind, self._word_at, self._start, self._end = "", "", 0, 0
        self._next()

    # Tokens

    def _next(self) -> str:
        """Go on to the next token; return the one that was at hand."""
        before = self._word_at
        space = _SPACE.match(self._text, self._end)
        assert space is not None
        self._start = space.end()
        match = _TOKEN.match(self._text, self._start)
        if match is not None:
            self._kind, self._word_at, self._end = match.lastgroup or "", match[0], match.end()
        elif self._start == len(self._text):
            self._kind, self._word_at, self._end = "end", "the end", self._start
        else:
            self._refuse(f"{self._text[self._start : self._start + 10]!r} is not understood")
        return before

    def _refuse(self, what: str) -> NoReturn:
        line = self._text.count("\n", 0, self._start) + 1
        column = self._start - self._text.rfind("\n", 0, self._start)
        raise InvalidSchemaError(f"line {line}, column {column}: {what}")

    def _at(self, symbol: str) -> bool:
        return self._word_at == symbol and self._kind == "symbol"

    def _take(self, symbol: str) -> bool:
        if self._at(symbol):
            self._next()
            return True
        return False

    def _expect(self, symbol: str) -> None:
        if not self._take(symbol):
            self._refuse(f"{symbol!r} is expected, not {self._word_at[:50]!r}")

    def _word(self, what: str) -> str:
        if self._kind != "word":
            self._refuse(f"{what} is expected, not {self._word_at[:50]!r}")
        if len(self._word_at) > NAME_CHARACTERS_MAX:
            self._refuse(f"{what} has over {NAME_CHARACTERS_MAX} characters")
        return self._next()

    def _name(self, what: str) -> str:
        if self._kind != "word" or not _NAME.match(self._word_at):
            self._refuse(f"{what} is expected, not {self._word_at[:50]!r}")
        return self._word(what)

    def _integer(self, what: str) -> int:
        sign = "-" if self._take("-") else ""
        if self._kind != "number" or len(self._word_at) > 20 or not re.fullmatch(r"0[xX]\w+|\d+", self._word_at):
            self._refuse(f"{what} is expected, not {self._word_at[:50]!r}")
        digits = self._next()
        return int(sign + digits, 16 if digits[:2] in ("0x", "0X") else 10)

    def _number(self, what: str) -> int:
        number = self._integer(what)
        if not 1 <= number <= MAX_FIELD_NUMBER:
            self._refuse(f"{what} is from 1 to {MAX_FIELD_NUMBER}, not {number}")
        return number

    def _string(self, what: str) -> str:
        if self._kind != "string":
            self._refuse(f"{what} is expected, not {self._word_at[:50]!r}")
        parts = []
        while self._kind == "string":
            parts.append(_ESCAPE.sub(_unescaped, self._next()[1:-1]))
        return "".join(parts)

    # Files and what is in them

    def file(self) -> ProtoFile:
        file = ProtoFile()
        if self._word_at in ("syntax", "edition") and self._kind == "word":
            keyword = self._next()
            self._expect("=")
            file.syntax = self._string("a syntax")
            if keyword == "syntax" and file.syntax not in ("proto2", "proto3"):
                self._refuse(f"the syntax is proto2 or proto3, not {file.syntax[:50]!r}")
            self._expect(";")
        while self._kind != "end":
            self._file_statement(file)
        return file

    def _file_statement(self, file: ProtoFile) -> None:
        if self._take(";"):
            return
        keyword = self._word("a definition")
        if keyword == "message":
            file.types.append(self._message())
        elif keyword == "enum":
            file.types.append(self._enum())
        elif keyword == "package":
            if file.package:
                self._refuse("there are two packages")
            file.package = self._word("a package")
            self._expect(";")
        elif keyword == "import":
            imports = file.imports
            if self._kind == "word" and self._word_at in ("public", "weak"):
                imports = file.public_imports if self._next() == "public" else file.weak_imports
            imports.append(self._string("a file"))
            self._expect(";")
        elif keyword == "option":
            file.options.append(self._option())
            self._expect(";")
        elif keyword == "extend":
            file.extends.append(self._extend())
        elif keyword == "service":
            file.services.append(self._service())
        else:
            self._refuse(f"{keyword[:50]!r} is no definition of a file")

    def _block(self, statement: Callable[[], None]) -> None:
        """Read the statements of a block."""
        self._depth += 1
        if self._depth > BLOCK_DEPTH_MAX:
            self._refuse(f"blocks nest deeper than {BLOCK_DEPTH_MAX} levels")
        self._expect("{")
        while not self._take("}"):
            if self._kind == "end":
                self._refuse("a block does not end")
            if not self._take(";"):
                statement()
        self._depth -= 1

    def _message(self) -> MessageElement:
        message = MessageElement(self._name("a message's name"))
        self._block(lambda: self._message_statement(message))
        return message

    def _message_statement(self, message: MessageElement) -> None:
        keyword = self._word("a field")
        if self._kind == "word" and keyword in ("message", "enum", "option", "oneof", "extend", "extensions"):
            if keyword == "message":
                message.types.append(self._message())
            elif keyword == "enum":
                message.types.append(self._enum())
            elif keyword == "oneof":
                message.oneofs.append(self._oneof())
            elif keyword == "extend":
                message.extends.append(self._extend())
            elif keyword == "option":
                message.options.append(self._option())
                self._expect(";")
            else:
                self._refuse("numbers are expected")
        elif keyword == "option" and self._at("("):
            message.options.append(self._option())
            self._expect(";")
        elif keyword == "extensions" and self._kind == "number":
            message.extensions.append(self._extensions())
        elif keyword == "reserved" and self._kind in ("number", "string", "word", "symbol"):
            message.reserved.append(self._reserved())
        else:
            self._field_or_group(keyword, message.fields, message.groups)

    def _field_or_group(
        self, word: str, fields: list[FieldElement], groups: list[GroupElement] | None, *, labels: bool = True
    ) -> None:
        label = ""
        if labels and word in _LABELS and self._kind == "word":
            label, word = word, self._word("a type")
        if word == "group" and groups is not None and self._kind == "word":
            groups.append(self._group(label))
        else:
            fields.append(self._field(label, word))

    def _field(self, label: str, type_: str) -> FieldElement:
        if type_ == "map" and self._take("<"):
            key = self._word("a type of keys")
            self._expect(",")
            type_ = f"map<{key}, {self._word('a type of values')}>"
            self._expect(">")
        name = self._name("a field's name")
        self._expect("=")
        field = FieldElement(name, type_, self._number("a field's number"), label)
        for option in self._compact_options():
            if option.name == "default" and not option.is_custom:
                field.default = option.value
            elif option.name == "json_name" and not option.is_custom:
                field.json_name = str(option.value.value)
            else:
                field.options.append(option)
        self._expect(";")
        return field

    def _group(self, label: str) -> GroupElement:
        name = self._name("a group's name")
        self._expect("=")
        number = self._number("a group's number")
        self._compact_options()
        message = MessageElement(name)
        self._block(lambda: self._message_statement(message))
        return GroupElement(name, number, label, message)

    def _oneof(self) -> OneOfElement:
        oneof = OneOfElement(self._name("a oneof's name"))

        def statement() -> None:
            word = self._word("a field")
            if word == "option" and (self._kind == "word" or self._at("(")):
                oneof.options.append(self._option())
                self._expect(";")
            else:
                self._field_or_group(word, oneof.fields, oneof.groups, labels=False)

        self._block(statement)
        return oneof

    def _extend(self) -> ExtendElement:
        extend = ExtendElement(self._word("a message's name"))
        self._block(lambda: self._field_or_group(self._word("a field"), extend.fields, None))
        return extend

    def _enum(self) -> EnumElement:
        enum = EnumElement(self._name("an enum's name"))

        def statement() -> None:
            name = self._name("a constant")
            if name == "option" and not self._at("="):
                enum.options.append(self._option())
                self._expect(";")
            elif name == "reserved" and not self._at("="):
                enum.reserved.append(self._reserved())
            else:
                self._expect("=")
                number = self._integer("a constant's number")
                if not -(2**31) <= number < 2**31:
                    self._refuse(f"the number {number} does not fit in 32 bits")
                enum.constants.append(EnumConstant(name, number, self._compact_options()))
                self._expect(";")

        self._block(statement)
        return enum

    def _service(self) -> ServiceElement:
        service = ServiceElement(self._name("a service's name"))

        def statement() -> None:
            word = self._word("a method")
            if word == "option":
                service.options.append(self._option())
                self._expect(";")
            elif word == "rpc":
                service.rpcs.append(self._rpc())
            else:
                self._refuse(f"a method is expected, not {word[:50]!r}")

        self._block(statement)
        return service

    def _rpc(self) -> RpcElement:
        rpc = RpcElement(self._name("a method's name"), "", "")
        rpc.request_streaming, rpc.request = self._rpc_type()
        if self._word("returns") != "returns":
            self._refuse("'returns' is expected")
        rpc.response_streaming, rpc.response = self._rpc_type()
        if not self._at("{"):
            self._expect(";")
            return rpc

        def statement() -> None:
            if self._word("an option") != "option":
                self._refuse("an option is expected")
            rpc.options.append(self._option())
            self._expect(";")

        self._block(statement)
        self._take(";")
        return rpc

    def _rpc_type(self) -> tuple[bool, str]:
        self._expect("(")
        word = self._word("a message")
        is_streaming = word == "stream" and self._kind == "word"
        if is_streaming:
            word = self._word("a message")
        self._expect(")")
        return is_streaming, word

    def _reserved(self) -> ReservedElement:
        values: list[Reserved] = []
        while True:
            if self._kind == "string":
                values.append(self._string("a name"))
            elif self._kind == "word":
                values.append(self._name("a name"))
            else:
                values.append(self._range())
            if not self._take(","):
                break
        self._expect(";")
        return ReservedElement(values)

    def _extensions(self) -> ExtensionsElement:
        values = [self._range()]
        while self._take(","):
            values.append(self._range())
        extensions = ExtensionsElement(values, self._compact_options())
        self._expect(";")
        return extensions

    def _range(self) -> int | tuple[int, int]:
        start = self._integer("a number")
        if self._word_at != "to" or self._kind != "word":
            return start
        self._next()
        if self._word_at == "max":
            self._next()
            return start, MAX_FIELD_NUMBER
        end = self._integer("a number")
        if end < start:
            self._refuse(f"the range from {start} to {end} is empty")
        return start, end

    # Options

    def _compact_options(self) -> list[Option]:
        if not self._take("["):
            return []
        options = [self._option()]
        while self._take(","):
            options.append(self._option())
        self._expect("]")
        return options

    def _option(self) -> Option:
        is_custom = self._take("(")
        name = self._word("an option's name")
        path = ""
        if is_custom:
            self._expect(")")
            while self._word_at.startswith(".") and self._kind != "number":
                part = self._next()
                if part == ".":
                    self._expect("(")
                    part = f".({self._word('an extension')})"
                    self._expect(")")
                path += part
        self._expect("=")
        return Option(name, self._value(), is_custom, path)

    def _value(self) -> Value:
        self._depth += 1
        if self._depth > BLOCK_DEPTH_MAX:
            self._refuse(f"values nest deeper than {BLOCK_DEPTH_MAX} levels")
        value = self._value_inside()
        self._depth -= 1
        return value

    def _value_inside(self) -> Value:
        if self._kind == "string":
            return Value("string", self._string("a value"))
        if self._kind == "number":
            return Value("number", self._next())
        if self._kind == "word":
            word = self._next()
            return Value("boolean" if word in ("true", "false") else "enum", word)
        if self._take("-"):
            if self._kind not in ("number", "word"):
                self._refuse("a number is expected")
            return Value("number", f"-{self._next()}")
        if self._take("+"):
            return Value("number", self._next())
        if self._take("["):
            return Value("list", self._list())
        if self._take("{"):
            return Value("map", self._map("}"))
        if not self._take("<"):
            self._refuse(f"a value is expected, not {self._word_at[:50]!r}")
        return Value("map", self._map(">"))

    def _list(self) -> list[Value]:
        values: list[Value] = []
        while not self._take("]"):
            values.append(self._value())
            if not self._take(",") and not self._at("]"):
                self._refuse("',' or ']' is expected")
        return values

    def _map(self, end: str) -> dict[str, Value]:
        members: dict[str, Value] = {}
        while not self._take(end):
            if self._take("["):
                key = self._word("an extension")
                while self._take("/"):
                    key += f"/{self._word('a message')}"
                self._expect("]")
                key = f"[{key}]"
            else:
                key = self._name("a name")
            if not self._take(":") and not self._at("{") and not self._at("<"):
                self._refuse(f"':' is expected, not {self._word_at[:50]!r}")
            value = self._value()
            if key in members:
                # A repeated field, one by one.
                before = members[key]
                if not isinstance(before.value, list):
                    before = members[key] = Value("list", [before])
                assert isinstance(before.value, list), before
                before.value.extend(value.value if isinstance(value.value, list) else [value])
            else:
                members[key] = value
            if not self._take(","):
                self._take(";")
        return members


def _unescaped(match: re.Match[str]) -> str:
    plain, hexadecimal, octal, short, long = match.groups()
    if plain:
        return _ESCAPED.get(plain, plain)
    if octal:
        return chr(int(octal, 8) & 255)
    code = int(hexadecimal or short or long, 16)
    return chr(code) if code < 0x110000 else match[0]
