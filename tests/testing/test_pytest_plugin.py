"""The plugin in a project of its own, run by pytester."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\nasyncio_default_fixture_loop_scope = function\n")
    return pytester


CONNECT = """
import socket

def connect(broker):
    host, port = broker.bootstrap_servers.split(":")
    socket.create_connection((host, int(port)), 5).close()
"""


def test_a_fresh_broker_per_test_and_one_for_the_run(project: pytest.Pytester) -> None:
    project.makepyfile(
        CONNECT
        + """
seen = []

def test_one(millstream_broker, millstream_broker_session):
    connect(millstream_broker)
    seen.append((millstream_broker.bootstrap_servers, millstream_broker_session.bootstrap_servers))

def test_two(millstream_broker, millstream_broker_session):
    connect(millstream_broker_session)
    seen.append((millstream_broker.bootstrap_servers, millstream_broker_session.bootstrap_servers))

def test_three():
    (fresh, shared), (other, same) = seen
    assert fresh != other
    assert shared == same
"""
    )
    project.runpytest_subprocess().assert_outcomes(passed=3)


def test_settings_come_from_the_project_and_from_the_test(project: pytest.Pytester) -> None:
    project.makeconftest(
        """
import pytest

@pytest.fixture(scope="session")
def millstream_config():
    return {"num.partitions": 2}
"""
    )
    project.makepyfile(
        """
import asyncio
import pytest
from millstream.core.client import Client, NewTopic, create_topics

def partitions(broker):
    async def ask():
        async with Client(broker.bootstrap_servers) as client:
            await create_topics(client, [NewTopic("t")])
            return len((await client.metadata(["t"])).topic("t").partitions)
    return asyncio.run(ask())

def test_the_projects(millstream_broker):
    assert partitions(millstream_broker) == 2

@pytest.mark.millstream(config={"num.partitions": 5})
def test_its_own(millstream_broker):
    assert partitions(millstream_broker) == 5
"""
    )
    project.runpytest_subprocess("--strict-markers").assert_outcomes(passed=2)


def test_a_failed_test_shows_what_its_broker_printed(project: pytest.Pytester) -> None:
    project.makepyfile("def test_it(millstream_broker):\n    assert False, 'mine'\n")
    result = project.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Millstream broker output*", "*serving on 127.0.0.1:*"])


def test_a_broker_that_cannot_start_is_an_error_of_the_test(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
import pytest

@pytest.mark.millstream(config={"num.partitions": "many"})
def test_it(millstream_broker):
    pass
"""
    )
    result = project.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["millstream_broker: the broker ended with code 1*", "*configuration num.partitions*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*child.py*")


def test_a_project_that_does_not_use_it_pays_nothing(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
import sys

def test_it():
    ours = {name for name in sys.modules if name.split(".")[0] == "millstream"}
    assert ours <= {"millstream", "millstream.testing", "millstream.testing.pytest_plugin"}, ours
    assert not {"pyarrow", "typer", "rich", "uvloop"} & set(sys.modules)
"""
    )
    project.runpytest_subprocess("-p", "no:asyncio", "-p", "no:hypothesispytest").assert_outcomes(passed=1)
