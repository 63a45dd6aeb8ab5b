"""What the harness of Apache Kafka gives to tests besides: ports, and waiting for a condition."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from millstream.testing.kafka import free_ports, wait_until


def test_free_ports_are_free_and_never_given_twice() -> None:
    first = free_ports(20)
    with ExitStack() as stack:
        for port in first:
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
        second = free_ports(20)
    assert len({*first, *second, *free_ports(20)}) == 60


def test_free_ports_are_none_that_an_outgoing_connection_gets() -> None:
    """A server that is started again needs its port back, whatever was connected meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as stack:
        taken = set()
        for _ in range(200):
            client = stack.enter_context(socket.create_connection(server.getsockname()))
            stack.enter_context(server.accept()[0])
            taken.add(client.getsockname()[1])
        assert max(free_ports(50)) < min(taken)


def test_waiting_ends_with_what_the_condition_gave_or_says_what_never_came() -> None:
    answers = iter([None, 0, "there"])
    assert wait_until(lambda: next(answers), 30, "an answer") == "there"
    with pytest.raises(TimeoutError, match=r"the moon: not within 0\.01 s"):
        wait_until(lambda: False, 0.01, "the moon")
