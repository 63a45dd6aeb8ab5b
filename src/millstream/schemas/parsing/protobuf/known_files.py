"""The files every schema may import without a reference: Google's own, and Confluent's for metadata and decimals."""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Final

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from millstream.schemas.parsing.protobuf.descriptors import file_of_descriptor
from millstream.schemas.parsing.protobuf.elements import ProtoFile
from millstream.schemas.parsing.protobuf.reader import read_proto

_GOOGLE: Final = {
    f"google/protobuf/{name}.proto": f"google.protobuf.{name}_pb2"
    for name in (
        "any",
        "api",
        "descriptor",
        "duration",
        "empty",
        "field_mask",
        "source_context",
        "struct",
        "timestamp",
        "type",
        "wrappers",
    )
}

_CONFLUENT: Final = {
    "confluent/meta.proto": """
        syntax = "proto3"; package confluent;
        import "google/protobuf/descriptor.proto";
        option java_package = "io.confluent.protobuf";
        message Meta { string doc = 1; map<string, string> params = 2; repeated string tags = 3; }
        extend google.protobuf.FileOptions { Meta file_meta = 1088; }
        extend google.protobuf.MessageOptions { Meta message_meta = 1088; }
        extend google.protobuf.FieldOptions { Meta field_meta = 1088; }
        extend google.protobuf.EnumOptions { Meta enum_meta = 1088; }
        extend google.protobuf.EnumValueOptions { Meta enum_value_meta = 1088; }
        """,
    "confluent/type/decimal.proto": """
        syntax = "proto3"; package confluent.type;
        message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }
        """,
    "google/type/date.proto": """
        syntax = "proto3"; package google.type;
        message Date { int32 year = 1; int32 month = 2; int32 day = 3; }
        """,
    "google/type/timeofday.proto": """
        syntax = "proto3"; package google.type;
        message TimeOfDay { int32 hours = 1; int32 minutes = 2; int32 seconds = 3; int32 nanos = 4; }
        """,
    "google/type/latlng.proto": """
        syntax = "proto3"; package google.type;
        message LatLng { double latitude = 1; double longitude = 2; }
        """,
    "google/type/money.proto": """
        syntax = "proto3"; package google.type;
        message Money { string currency_code = 1; int64 units = 2; int32 nanos = 3; }
        """,
    "google/type/decimal.proto": """
        syntax = "proto3"; package google.type;
        message Decimal { string value = 1; }
        """,
}

KNOWN_FILES: Final = frozenset((*_GOOGLE, *_CONFLUENT))


@lru_cache(64)
def known_file(name: str) -> ProtoFile | None:
    """Return one of KNOWN_FILES, None for any other."""
    if name in _GOOGLE:
        return file_of_descriptor(known_descriptor(name))
    return read_proto(_CONFLUENT[name]) if name in _CONFLUENT else None


@lru_cache(16)
def known_descriptor(name: str) -> FileDescriptorProto:
    """Return the descriptor of one of Google's own files, as the library has it."""
    module = importlib.import_module(_GOOGLE[name])
    return FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)


def is_google(name: str) -> bool:
    """Whether the protobuf library itself has the file."""
    return name in _GOOGLE
