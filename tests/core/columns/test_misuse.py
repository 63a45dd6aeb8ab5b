"""What is done wrong is said at once, in one sentence that says what to do."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

import millstream
from millstream import Admin, ConfigError, Consumer, ErrorCode, KafkaError, Producer, TopicPartition, aio

CLIENTS = [Producer, Consumer, Admin, aio.Producer, aio.Consumer, aio.Admin]
NOBODY = "127.0.0.1:1"


@pytest.mark.parametrize("kind", CLIENTS)
def test_clients_belong_to_their_process(kind: Any) -> None:
    with pytest.raises(TypeError, match=f"a {kind.__name__} cannot be pickled: make one in the process that uses it"):
        pickle.dumps(kind(NOBODY))


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("servers", ["a:b", "::1:9092", "host/path:1", ["a:1", "b:x"]])
def test_what_is_no_address_is_refused_when_the_client_is_made(kind: Any, servers: Any) -> None:
    with pytest.raises(ConfigError, match=r"bootstrap\.servers: '[^']+' (is no address|has no valid port)"):
        kind(servers)


@pytest.mark.parametrize("given", ["flights", ("flights",), ("flights", "0"), (0, "flights"), 7, None])
def test_what_is_no_partition_is_named(given: Any) -> None:
    with pytest.raises(TypeError, match="is no partition: give TopicPartition"):
        TopicPartition.of(given)
    with Consumer(NOBODY) as consumer:
        with pytest.raises(TypeError, match="is no partition: give TopicPartition"):
            consumer.seek(given, 0)
        with pytest.raises(TypeError, match="is no partition: give TopicPartition"):
            consumer.assign([given])


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"trace": b"7"}, r"headers are pairs of a name and bytes, as \[\('trace', b'7'\)\], not 'trace'"),
        ([b"trace"], "headers are pairs"),
        ([("trace", b"7", 1)], "headers are pairs"),
        ([("trace", "7")], r"the content of a header is bytes, .* not str; encode it"),
        ([(b"trace", b"7")], "the name of a header is a str, not bytes"),
    ],
)
def test_headers_that_are_none(bootstrap: str, make_topic: Callable[[int], str], headers: Any, message: str) -> None:
    with Producer(bootstrap) as producer, pytest.raises(TypeError, match=message):
        producer.send(make_topic(1), b"v", headers=headers)


def test_a_partition_that_a_topic_has_not_is_said_with_those_it_has(
    bootstrap: str, make_topic: Callable[[int], str]
) -> None:
    topic = make_topic(2)
    with Producer(bootstrap, max_block_ms=100) as producer:
        with pytest.raises(KafkaError, match=f"topic '{topic}' has no partition 9: it has 2, from 0 on") as raised:
            producer.send(topic, b"v", partition=9)
        assert raised.value.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_errors_show_their_code() -> None:
    error = KafkaError(ErrorCode.NOT_COORDINATOR, "ask another")
    assert repr(error) == "KafkaError(NOT_COORDINATOR, 'ask another')"
    assert repr(pickle.loads(pickle.dumps(error))) == repr(error)


def test_all_public_names_can_be_had_at_once() -> None:
    names: dict[str, Any] = {}
    exec("from millstream import *", names)
    assert names.keys() >= {"Producer", "Consumer", "Admin", "TopicPartition", "KafkaError"}
    assert set(dir(millstream)) >= names.keys() - {"__builtins__"}
    assert millstream.aio.Producer is aio.Producer
