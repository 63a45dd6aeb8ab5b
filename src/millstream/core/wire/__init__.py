"""The Kafka protocol as data: messages declared once, generated codecs, the error table.

    fields     how a message is declared: types, version ranges, nullability, tags
    codec      functions generated per class, version and direction on first use
    source, decoding, encoding, runtime   how they are generated, and what they call
    messages   one module per API
    api        the table of APIs, and which versions are implemented and advertised
    header     request and response headers
    errors     the table of error codes; KafkaError, WireError
    embedded_protocol   what consumers tell each other inside JoinGroup and SyncGroup

No I/O and no state: functions from bytes to messages and back.
"""

from __future__ import annotations

from millstream.core.wire.api import APIS, Api, ApiKey
from millstream.core.wire.codec import (
    Decoder,
    Encoder,
    PartsEncoder,
    decode,
    decoder,
    encode,
    encode_parts,
    encoder,
    parts_encoder,
)
from millstream.core.wire.errors import ErrorCode, KafkaError, WireError, error_code
from millstream.core.wire.fields import ZERO_UUID, Message
from millstream.core.wire.header import (
    RequestHeader,
    encode_request,
    encode_request_header,
    encode_response_header,
    parse_request_header,
    parse_response_header,
)
from millstream.core.wire.long_list import ListEncoder
from millstream.core.wire.runtime import Buffer, unsigned_varint, varint_bytes
from millstream.core.wire.uuids import uuid_from_text, uuid_text

__all__ = [
    "APIS",
    "ZERO_UUID",
    "Api",
    "ApiKey",
    "Buffer",
    "Decoder",
    "Encoder",
    "ErrorCode",
    "KafkaError",
    "ListEncoder",
    "Message",
    "PartsEncoder",
    "RequestHeader",
    "WireError",
    "decode",
    "decoder",
    "encode",
    "encode_parts",
    "encode_request",
    "encode_request_header",
    "encode_response_header",
    "encoder",
    "error_code",
    "parse_request_header",
    "parse_response_header",
    "parts_encoder",
    "unsigned_varint",
    "uuid_from_text",
    "uuid_text",
    "varint_bytes",
]
