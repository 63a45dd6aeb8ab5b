"""Fixtures every test folder shares: Apache Kafka and HDFS, one of each per worker, and how long matrices may be."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings
from tests.support.httpfs import PROXY_USER
from tests.support.registry import registry

from millstream.cli.child import RegistryProcess
from millstream.testing.hdfs import HdfsUnavailableError, MiniHdfs, hadoop_jars
from millstream.testing.kafka import ApacheKafka, KafkaUnavailableError, kafka_jars

# How long an example takes says what else the machine does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

_DAY_MS: Final = "86400000"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of this project's tests."""
    parser.addoption("--rerecord", action="store_true", help="write golden transcripts anew; read the difference")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test whose broker may be of either kind on ours, and where its marker `from_kafka` says so on Kafka too."""
    if "broker_kind" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("from_kafka")
    too = marker is not None and (not marker.kwargs.get("soak") or os.environ.get("MILLSTREAM_SOAK") == "1")
    kinds = ["millstream", *([pytest.param("kafka", marks=pytest.mark.java)] if too else [])]
    metafunc.parametrize("broker_kind", kinds, indirect=True, scope="module")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files so that two processes end at about the same time, and the session's servers idle for few minutes.

    The files that need them come last. Of both parts those with a time limit of their own come first, as they take
    longest, and then those with the most tests: what is left at the end is short.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)

    def place(tests: list[pytest.Item]) -> tuple[bool, bool, int]:
        is_long = any(test.get_closest_marker("timeout") for test in tests)
        return any(_needs_server(test) for test in tests), not is_long, -len(tests)

    items[:] = [test for tests in sorted(files.values(), key=place) for test in tests]


def _needs_server(test: pytest.Item) -> bool:
    callspec = getattr(test, "callspec", None)
    is_on_kafka = callspec is not None and callspec.params.get("broker_kind") == "kafka"
    fixtures = getattr(test, "fixturenames", ())
    return is_on_kafka or "apache_kafka" in fixtures or test.get_closest_marker("hdfs") is not None


@pytest.fixture(scope="module")
def broker_kind(request: pytest.FixtureRequest) -> str:
    """Whose broker a test reads from: "millstream" or "kafka"; fixtures that start one ask for it."""
    kind: str = request.param
    return kind


@pytest.fixture(scope="session")
def kafka_registry(apache_kafka: ApacheKafka) -> Iterator[RegistryProcess]:
    """A registry that keeps its schemas in this worker's Apache Kafka."""
    with registry(apache_kafka.bootstrap_servers, {"kafkastore.topic": "_schemas_of_loads"}) as running:
        yield running


@pytest.fixture
def rerecord(request: pytest.FixtureRequest) -> bool:
    """Whether golden transcripts are to be written anew."""
    return bool(request.config.getoption("--rerecord"))


@pytest.fixture(scope="session")
def soak() -> bool:
    """Whether the long matrices run whole (MILLSTREAM_SOAK=1) or by a seeded sample."""
    return os.environ.get("MILLSTREAM_SOAK") == "1"


@pytest.fixture(scope="session")
def millstream_config() -> Mapping[str, str]:
    """Settings of the brokers that tests share: while they run, retention does not look at their topics.

    Records of tests are of any day, and a round of it would take them from under whoever is about to read them.
    """
    return {"log.retention.check.interval.ms": _DAY_MS}


@pytest.fixture(scope="session")
def jars() -> Path:
    """Apache Kafka's jars. Missing ones skip the test on a developer's machine and fail it under CI=true."""
    try:
        return kafka_jars()
    except KafkaUnavailableError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def apache_kafka(
    jars: Path, tmp_path_factory: pytest.TempPathFactory, millstream_config: Mapping[str, str]
) -> Iterator[ApacheKafka]:
    """One Apache Kafka 4.3 for the whole session of this worker: make topics with names of your own in it."""
    folder = tmp_path_factory.mktemp("apache-kafka")
    # Its first round of retention comes half a minute after its start, whatever the interval is.
    properties = {"message.max.bytes": "2097152", "log.initial.task.delay.ms": _DAY_MS, **millstream_config}
    with ApacheKafka(folder, jars=jars, properties=properties) as kafka:
        yield kafka


@pytest.fixture(scope="session")
def hadoop_folder() -> Path:
    """Apache Hadoop's jars. Missing ones skip the test on a developer's machine and fail it under CI=true."""
    try:
        return hadoop_jars()
    except HdfsUnavailableError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def hdfs_of_session(hadoop_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MiniHdfs]:
    """One HDFS for the whole session of this worker; tests ask for `hdfs`, which sees that all of it runs."""
    with MiniHdfs(tmp_path_factory.mktemp("hdfs"), properties=PROXY_USER, jars=hadoop_folder) as hdfs:
        yield hdfs


@pytest.fixture
def hdfs(hdfs_of_session: MiniHdfs) -> Iterator[MiniHdfs]:
    """A real HDFS that others use too: work in a directory of your own, and kill and pause what you like."""
    hdfs_of_session.restore()
    yield hdfs_of_session
    hdfs_of_session.restore()
