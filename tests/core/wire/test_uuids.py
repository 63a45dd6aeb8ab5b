"""Ids and their text, against Kafka's rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.core.wire import ZERO_UUID, uuid_from_text, uuid_text


@given(st.binary(min_size=16, max_size=16))
def test_text_and_back(value: bytes) -> None:
    text = uuid_text(value)
    assert len(text) == 22
    assert uuid_from_text(text) == value


def test_known_ids() -> None:
    assert uuid_text(ZERO_UUID) == "AAAAAAAAAAAAAAAAAAAAAA"
    assert uuid_text(b"\xff" * 16) == "_____________________w"
    assert uuid_from_text("MkU3OEVBNTcwNTJENDM2Qg") == b"2E78EA57052D436B"


@pytest.mark.parametrize(
    "text", ["", "short", "MkU3OEVBNTcwNTJENDM2Qg==", "MkU3OEVBNTcwNTJENDM2Q/", "é" * 22, "A" * 23]
)
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match="is no id"):
        uuid_from_text(text)
