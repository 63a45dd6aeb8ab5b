"""Protobuf schemas: `reader` and `writer` for .proto text, `descriptors` for what protobuf's libraries know."""

from millstream.schemas.parsing.protobuf.schema import FILE_NAME, ProtobufSchema, parse_protobuf

__all__ = ["FILE_NAME", "ProtobufSchema", "parse_protobuf"]
