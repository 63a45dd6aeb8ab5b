"""Protobuf and Arrow: messages decoded to columns by protobuf's own runtime.

layout.py    the Arrow columns of a message, and the table of types: a reader of each
decoder.py   ProtobufDecoder: values to a record batch, bad ones reported
"""

from millstream.schemas.protobuf.decoder import ProtobufDecoder
from millstream.schemas.protobuf.layout import descriptor_at, message_count, path_of, protobuf_to_arrow_schema

__all__ = ["ProtobufDecoder", "descriptor_at", "message_count", "path_of", "protobuf_to_arrow_schema"]
