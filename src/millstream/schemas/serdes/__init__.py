"""Values to and from bytes with a registry's schemas, one by one, for any client.

serializer.py, deserializer.py   what every type shares: which schema, where its id goes, how it is called
avro.py, json_schema.py, protobuf.py   the types
framing.py    the wire format              subjects.py   under which subject a schema lies
context.py    where a value is going       errors.py     what goes wrong with one value
"""

from millstream.schemas.serdes.avro import (
    AsyncAvroDeserializer,
    AsyncAvroSerializer,
    AvroDeserializer,
    AvroSerializer,
)
from millstream.schemas.serdes.errors import DeserializationError, SerdeError, SerializationError
from millstream.schemas.serdes.json_schema import (
    AsyncJsonDeserializer,
    AsyncJsonSerializer,
    JsonDeserializer,
    JsonSerializer,
)
from millstream.schemas.serdes.protobuf import (
    AsyncProtobufDeserializer,
    AsyncProtobufSerializer,
    ProtobufDeserializer,
    ProtobufSerializer,
)

__all__ = [
    "AsyncAvroDeserializer",
    "AsyncAvroSerializer",
    "AsyncJsonDeserializer",
    "AsyncJsonSerializer",
    "AsyncProtobufDeserializer",
    "AsyncProtobufSerializer",
    "AvroDeserializer",
    "AvroSerializer",
    "DeserializationError",
    "JsonDeserializer",
    "JsonSerializer",
    "ProtobufDeserializer",
    "ProtobufSerializer",
    "SerdeError",
    "SerializationError",
]
