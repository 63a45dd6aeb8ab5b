"""A client that is dropped without `close` says so, as files and sockets do, and leaves nothing behind."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from millstream import Admin, ConfigError, Consumer, Producer, TopicPartition, aio
from millstream.core.client.blocking import background_loop
from millstream.testing.kafka import wait_until

WAIT_S = 60.0


def test_a_producer_is_missed_and_what_it_has_is_sent(bootstrap: str, make_topic: Callable[[int], str]) -> None:
    topic = make_topic(1)
    producer = Producer(bootstrap, linger_ms=60_000)
    handle = producer.send(topic, b"not forgotten")
    with pytest.warns(ResourceWarning, match=r"unclosed <Producer open of .*>: use `with`, or close it"):
        del producer
    assert handle.result(WAIT_S).offset == 0


def test_a_consumer_is_missed_and_leaves_its_group(bootstrap: str, make_topic: Callable[[int], str]) -> None:
    topic = make_topic(1)
    with Producer(bootstrap) as producer:
        producer.send(topic, b"v").result(WAIT_S)
    consumer = Consumer(bootstrap, group_id=topic, auto_offset_reset="earliest")
    consumer.subscribe([topic])
    assert len(consumer.poll_records(WAIT_S)) == 1
    with Admin(bootstrap) as admin:
        assert len(admin.describe_group(topic).members) == 1
        with pytest.warns(ResourceWarning, match=f"unclosed <Consumer of group '{topic}', open, 1 partitions>"):
            del consumer
        wait_until(lambda: not admin.describe_group(topic).members, WAIT_S, "the member to be gone")


def test_an_admin_is_missed_once_it_has_connected(bootstrap: str) -> None:
    admin = Admin(bootstrap)
    admin.list_topics()
    with pytest.warns(ResourceWarning, match="unclosed <Admin of "):
        del admin


def test_what_was_closed_or_never_used_is_not_missed(bootstrap: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in (Producer, Consumer, Admin, aio.Producer, aio.Consumer, aio.Admin):
            made: Any = kind(bootstrap)
            del made
            with pytest.raises(ConfigError):
                kind(bootstrap, no_such_config=1)
        with Producer(bootstrap), Consumer(bootstrap), Admin(bootstrap) as used:
            used.list_topics()
        del used
        gc.collect()


@pytest.mark.parametrize("kind", [aio.Producer, aio.Consumer, aio.Admin])
async def test_clients_of_a_loop_are_missed(bootstrap: str, kind: Any) -> None:
    """What they hold ends with their loop: only the warning can be had at once."""
    client = kind(bootstrap)
    if isinstance(client, aio.Admin):
        await client.list_topics()
    else:
        await client.start()
    closed = client.close
    with pytest.warns(ResourceWarning, match=f"unclosed <{kind.__name__}"):
        client.__del__()
    await closed()
    client.__del__()


def test_a_program_that_listens_hears_of_it(bootstrap: str, make_topic: Callable[[int], str]) -> None:
    """By -W error as well as by -X dev: at the end of the program, too, and nothing else is said."""
    code = """
import sys
from millstream import Consumer, Producer
def work(bootstrap, topic):
    producer = Producer(bootstrap)
    producer.send(topic, b"v").result(60)
    reader = Consumer(bootstrap, auto_offset_reset="earliest")
    reader.assign([(topic, 0)])
    assert reader.poll_records(60)
work(*sys.argv[1:])
"""
    for flags in (["-X", "dev"], ["-W", "error"]):
        done = subprocess.run(
            [sys.executable, *flags, "-c", code, bootstrap, make_topic(1)],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr.count("ResourceWarning: unclosed <Producer open of") == 1, done.stderr
        assert done.stderr.count("ResourceWarning: unclosed <Consumer, open, 1 partitions>") == 1, done.stderr
        assert done.stderr.count("ResourceWarning: unclosed") == 2, done.stderr


def test_the_background_thread_goes_on(bootstrap: str, make_topic: Callable[[int], str]) -> None:
    """Closing in the background does not touch other clients on the same thread."""
    topic = make_topic(1)
    with Consumer(bootstrap, auto_offset_reset="earliest") as other:
        other.assign([TopicPartition(topic, 0)])
        producer = Producer(bootstrap)
        producer.send(topic, b"v")
        with pytest.warns(ResourceWarning):
            del producer
        assert [record.value for record in other.poll_records(WAIT_S)] == [b"v"]
        wait_until(lambda: not background_loop()._left, WAIT_S, "the producer to be closed")
