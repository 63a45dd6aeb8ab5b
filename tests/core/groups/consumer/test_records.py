"""Records of consumer groups as Apache Kafka 4.3 wrote them: read, and written again byte for byte."""

from __future__ import annotations

import pytest

from millstream.core.groups.consumer.member import ConsumerMember
from millstream.core.groups.records import (
    ClassicMemberMetadata,
    ClassicProtocol,
    ConsumerGroupMemberMetadataKey,
    ConsumerGroupMemberMetadataValue,
    decode_record,
    encode_record,
)

TOPIC_ID = bytes.fromhex("5f871ac1bce54b30932a60f38c5444") + b"\x02"
TOPIC = b"\x02_\x87\x1a\xc1\xbc\xe5K0\x93*`\xf3\x8cTD\x02"
FOUR = b"\x05\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x03"
# One member of one group, as it joined.
GOLDEN = {
    "member": (
        b"\x00\x05\x00\x01x\x00\x01m",
        b"\x00\x00\x00\x00\x04raw\x0b/127.0.0.1\x02\x08a-topic\x01\x00\x00\xea`\x00\x01\x00\x01\x00",
    ),
    "epoch": (b"\x00\x03\x00\x01x", b"\x00\x00\x00\x00\x00\x02\x01\x00\x08\x18\xfcnS\xeb\x13\nh"),
    "target": (b"\x00\x07\x00\x01x\x00\x01m", b"\x00\x00" + TOPIC + FOUR + b"\x00\x00"),
    "target epoch": (b"\x00\x06\x00\x01x", b"\x00\x00\x00\x00\x00\x02\x01\x00\x08\x00\x00\x01\xa1\xfd\x91\xdc\x82"),
    "assignment": (
        b"\x00\x08\x00\x01x\x00\x01m",
        b"\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00" + TOPIC + FOUR
        + b"\x01\x00\x11\x05\x00\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00\x02\x01\x00",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_apache_kafkas_bytes_are_ours(name: str) -> None:
    decoded = decode_record(*GOLDEN[name])
    assert decoded is not None
    assert encode_record(*decoded) == GOLDEN[name]


def test_a_member_is_what_its_records_say() -> None:
    metadata, current = (decode_record(*GOLDEN[name]) for name in ("member", "assignment"))
    assert metadata is not None
    assert current is not None
    member = ConsumerMember("m").with_metadata(metadata[1]).with_current(current[1])
    assert member.subscribed_topic_names == {"a-topic"}
    assert not member.is_classic
    assert (member.member_epoch, member.previous_member_epoch) == (2, 0)
    assert member.assigned == {TOPIC_ID: dict.fromkeys(range(4), 2)}
    assert (member.metadata_value(), member.current_value()) == (metadata[1], current[1])


def test_who_speaks_the_classic_protocol_is_told_apart_by_a_byte() -> None:
    key = ConsumerGroupMemberMetadataKey(group_id="g", member_id="m")
    classic = ClassicMemberMetadata(
        session_timeout_ms=5, supported_protocols=[ClassicProtocol(name="range", metadata=b"x")]
    )
    for metadata, tail in (
        (None, b"\x01\x00\x01\x00"),
        (classic, b"\x01\x00\x10\x01\x00\x00\x00\x05\x02\x06range\x02x\x00\x00"),
    ):
        value = ConsumerGroupMemberMetadataValue(client_id="c", classic_member_metadata=metadata)
        encoded = encode_record(key, value)
        assert encoded[1] is not None
        assert encoded[1].endswith(tail)
        assert decode_record(encoded[0], encoded[1]) == (key, value)
