"""Elements as .proto text, formatted as Confluent's registry stores and returns it.

Statements stand in the order syntax, package, imports, options, messages, enums, extends, services; in a message
reserved, options, fields, oneofs, groups, extensions, extends, messages, enums; each group of them after an empty
line, two blanks for each level (on empty lines of blocks inside blocks too). The text is what identifies a schema: a
blank more is another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from millstream.schemas.parsing.protobuf.elements import (
    MAX_FIELD_NUMBER,
    EnumElement,
    ExtendElement,
    FieldElement,
    GroupElement,
    MessageElement,
    OneOfElement,
    Option,
    ProtoFile,
    Reserved,
    RpcElement,
    ServiceElement,
    Value,
)

_ESCAPES: Final = str.maketrans(
    {
        "\a": "\\a",
        "\b": "\\b",
        "\f": "\\f",
        "\n": "\\n",
        "\r": "\\r",
        "\t": "\\t",
        "\v": "\\v",
        "\\": "\\\\",
        "'": "\\'",
        '"': '\\"',
    }
)

Lines: TypeAlias = list[str | None]
"""Lines of a block; None is the empty line before a section, which only outer blocks indent."""


def write_proto(file: ProtoFile) -> str:
    """Return the text of a file."""
    lines: Lines = []
    if file.syntax:
        lines.append(f'{"edition" if file.is_edition else "syntax"} = "{file.syntax}";')
    if file.package:
        lines.append(f"package {file.package};")
    _section(lines, _imports(file))
    _section(lines, (line for option in file.options for line in _option_statement(option)))
    _section(lines, _types(file.types))
    _section(lines, (line for extend in file.extends for line in _extend(extend)))
    _section(lines, (line for service in file.services for line in _service(service)))
    return "".join(f"{line or ''}\n" for line in lines)


def _section(lines: Lines, added: Iterable[str]) -> None:
    """Add lines after an empty one, if there are any."""
    added = list(added)
    if added:
        lines.append(None)
        lines += added


def _imports(file: ProtoFile) -> Iterator[str]:
    for name in file.imports:
        yield f'import "{name}";'
    for name in file.public_imports:
        yield f'import public "{name}";'
    for name in file.weak_imports:
        yield f'import weak "{name}";'


def _types(types: Sequence[MessageElement | EnumElement]) -> Iterator[str]:
    for type_ in types:
        if isinstance(type_, MessageElement):
            yield from _message(type_)
    for type_ in types:
        if isinstance(type_, EnumElement):
            yield from _enum(type_)


def _block(head: str, body: Lines) -> Iterator[str]:
    """A block, its sections each led by an empty line; the first of these ends the head."""
    if not body:
        yield f"{head} {{}}"
        return
    yield f"{head} {{"
    for line in body[1:]:
        yield "" if line is None else f"  {line}"
    yield "}"


def _message(message: MessageElement) -> Iterator[str]:
    body: Lines = []
    _section(body, (f"reserved {_ranges(one.values)};" for one in message.reserved))
    _section(body, (line for option in message.options for line in _option_statement(option)))
    _section(body, (line for field in message.fields for line in _field(field)))
    _section(body, (line for oneof in message.oneofs for line in _oneof(oneof)))
    _section(body, (line for group in message.groups for line in _group(group)))
    extensions = (
        line for one in message.extensions for line in _with_options(f"extensions {_ranges(one.values)}", one.options)
    )
    _section(body, extensions)
    _section(body, (line for extend in message.extends for line in _extend(extend)))
    _section(body, _types(message.types))
    return _block(f"message {message.name}", body)


def _enum(enum: EnumElement) -> Iterator[str]:
    lines = [f"reserved {_ranges(one.values)};" for one in enum.reserved]
    lines += [line for option in enum.options for line in _option_statement(option)]
    for constant in enum.constants:
        lines += _with_options(f"{constant.name} = {constant.number}", constant.options)
    body: Lines = []
    _section(body, lines)
    return _block(f"enum {enum.name}", body)


def _oneof(oneof: OneOfElement) -> Iterator[str]:
    body: Lines = []
    _section(body, (line for option in oneof.options for line in _option_statement(option)))
    _section(body, (line for field in oneof.fields for line in _field(field)))
    _section(body, (line for group in oneof.groups for line in _group(group)))
    return _block(f"oneof {oneof.name}", body)


def _group(group: GroupElement) -> Iterator[str]:
    label = f"{group.label} " if group.label else ""
    body: Lines = []
    _section(body, (line for field in group.message.fields for line in _field(field)))
    return _block(f"{label}group {group.name} = {group.number}", body)


def _extend(extend: ExtendElement) -> Iterator[str]:
    body: Lines = []
    _section(body, (line for field in extend.fields for line in _field(field)))
    return _block(f"extend {extend.name}", body)


def _service(service: ServiceElement) -> Iterator[str]:
    body: Lines = []
    _section(body, (line for option in service.options for line in _option_statement(option)))
    _section(body, (line for rpc in service.rpcs for line in _rpc(rpc)))
    return _block(f"service {service.name}", body)


def _rpc(rpc: RpcElement) -> Iterator[str]:
    request = f"{'stream ' if rpc.request_streaming else ''}{rpc.request}"
    response = f"{'stream ' if rpc.response_streaming else ''}{rpc.response}"
    head = f"rpc {rpc.name} ({request}) returns ({response})"
    if not rpc.options:
        yield f"{head};"
        return
    yield f"{head} {{"
    for option in rpc.options:
        for line in _option_statement(option):
            yield f"  {line}"
    yield "};"


def _field(field: FieldElement) -> Iterator[str]:
    options = list(field.options)
    if field.default is not None:
        options.append(Option("default", field.default))
    if field.json_name is not None:
        options.append(Option("json_name", Value("string", field.json_name)))
    label = f"{field.label} " if field.label else ""
    return _with_options(f"{label}{field.type} {field.name} = {field.number}", options)


def _ranges(values: Sequence[Reserved]) -> str:
    return ", ".join(map(_range, values))


def _range(value: Reserved) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, int):
        return str(value)
    return f"{value[0]} to {'max' if value[1] >= MAX_FIELD_NUMBER else value[1]}"


# Options


def _with_options(head: str, options: list[Option]) -> Iterator[str]:
    """A statement with the options of one in brackets."""
    if not options:
        return iter([f"{head};"])
    return iter(f"{head} {_bracketed([_option(option) for option in options])};".split("\n"))


def _option_statement(option: Option) -> list[str]:
    return f"option {_option(option)};".split("\n")


def _option(option: Option) -> str:
    name = f"({option.name}){option.path}" if option.is_custom else option.name
    return f"{name} = {_value(option.value, is_outer=True)}"


def _bracketed(values: list[str]) -> str:
    if len(values) == 1:
        return f"[{values[0]}]"
    return f"[\n{_indented(values)}\n]" if values else "[\n]"


def _indented(values: list[str]) -> str:
    """Values with commas between, each from a line of its own."""
    joined = ",\n".join(values)
    return "\n".join(f"  {line}" for line in joined.split("\n"))


def _value(value: Value, *, is_outer: bool = False) -> str:
    if isinstance(value.value, dict):
        members = [f"{key}: {_value(member)}" for key, member in value.value.items()]
        return f"{{\n{_indented(members)}\n}}" if members else "{\n}"
    if isinstance(value.value, list):
        items = [_value(item) for item in value.value]
        if is_outer:
            return _bracketed(items)
        return f"[\n{_indented(items)}\n]" if items else "[\n]"
    if value.kind == "string":
        return f'"{value.value.translate(_ESCAPES)}"'
    return value.value
