"""HOST:PORT as people write it, and what is none."""

from __future__ import annotations

import pytest

from millstream.core.net import Address, parse_address, parse_bootstrap


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:9092", Address("localhost", 9092)),
        (" kafka-1.example:19092 ", Address("kafka-1.example", 19092)),
        ("kafka", Address("kafka", 9092)),
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
        ("[::1]:9093", Address("::1", 9093)),
        ("[fe80::1]", Address("fe80::1", 9092)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "write HOST:PORT"),
        (":9092", "write HOST:PORT"),
        ("kafka:", "no valid port"),
        ("kafka:x", "no valid port"),
        ("kafka:65536", "no valid port"),
        ("kafka:-1", "no valid port"),
        ("::1", "in brackets"),
        ("[::1", "in brackets"),
        ("[::1]9092", "in brackets"),
        ("http://kafka:9092", "in brackets"),
        ("a b:9092", "write HOST:PORT"),
    ],
)
def test_what_is_no_address_is_said(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_address(text)


def test_a_bootstrap_list_keeps_its_order_and_names_each_once() -> None:
    assert parse_bootstrap("b:1, a:2,,b:1") == [Address("b", 1), Address("a", 2)]
    with pytest.raises(ValueError, match="empty"):
        parse_bootstrap(" , ")
