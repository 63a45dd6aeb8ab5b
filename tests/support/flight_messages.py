"""Protobuf messages for tests, made without a compiler: a file that imports another, messages in messages.

air/airline.proto   Airline
air/flight.proto    Airport, Flight { message Leg { message Seat } }: imports the former, and a timestamp
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import DESCRIPTOR as TIMESTAMP

STRING, INT32, MESSAGE = (getattr(FieldDescriptorProto, f"TYPE_{name}") for name in ("STRING", "INT32", "MESSAGE"))
TIMESTAMP_NAME = "google/protobuf/timestamp.proto"


def _message(name: str, *fields: tuple[str, Any], nested: tuple[DescriptorProto, ...] = ()) -> DescriptorProto:
    message = DescriptorProto(name=name, nested_type=nested)
    for number, (field, kind) in enumerate(fields, 1):
        repeated = isinstance(kind, list)
        kind = kind[0] if isinstance(kind, list) else kind
        label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
        if isinstance(kind, str):
            message.field.add(name=field, number=number, type=MESSAGE, type_name=kind, label=label, json_name=field)
        else:
            message.field.add(name=field, number=number, type=kind, label=label, json_name=field)
    return message


AIRLINE = FileDescriptorProto(
    name="air/airline.proto",
    package="air",
    syntax="proto3",
    message_type=[_message("Airline", ("code", STRING))],
)
FLIGHT = FileDescriptorProto(
    name="air/flight.proto",
    package="air",
    syntax="proto3",
    dependency=["air/airline.proto", TIMESTAMP_NAME],
    message_type=[
        _message("Airport", ("code", STRING)),
        _message(
            "Flight",
            ("airline", ".air.Airline"),
            ("at", ".google.protobuf.Timestamp"),
            ("delay", INT32),
            ("legs", [".air.Flight.Leg"]),
            nested=(
                _message(
                    "Leg",
                    ("to", ".air.Airport"),
                    nested=(_message("Seat", ("row", INT32)),),
                ),
            ),
        ),
    ],
)


def file_set() -> FileDescriptorSet:
    """All files, each behind those it imports."""
    timestamp = FileDescriptorProto()
    TIMESTAMP.CopyToProto(timestamp)
    return FileDescriptorSet(file=[timestamp, AIRLINE, FLIGHT])


def message_class(name: str) -> Any:
    """The class of a message, by its full name."""
    return GetMessageClass(_POOL.FindMessageTypeByName(name))


def flight(carrier: str, delay: int) -> Any:
    """A flight of two legs."""
    return message_class("air.Flight")(
        airline={"code": carrier},
        at={"seconds": 1_700_000_000},
        delay=delay,
        legs=[{"to": {"code": "ORD"}}, {"to": {"code": "SFO"}}],
    )


_POOL = DescriptorPool()
for _file in file_set().file:
    _POOL.Add(_file)
