"""BrokerConfig: an operator's file, its mistakes, its listeners."""

from __future__ import annotations

from pathlib import Path

import pytest

from millstream.core.config import BrokerConfig, ConfigError, Listener

KRAFT = """
process.roles=broker,controller
node.id=7
controller.quorum.voters=7@localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://broker.example:9092,CONTROLLER://broker.example:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT
num.network.threads=3
socket.send.buffer.bytes=102400
log.dirs=/tmp/one, /tmp/two
num.partitions=4
offsets.topic.replication.factor=1
log.retention.hours=24
log.segment.bytes=1073741824
"""


def load(tmp_path: Path, text: str, **overrides: str) -> BrokerConfig:
    """Load a file with this text."""
    (tmp_path / "server.properties").write_text(text)
    names = {name.replace("_", "."): value for name, value in overrides.items()}
    return BrokerConfig.load(tmp_path / "server.properties", names, host_name=lambda: "this.example")


def test_a_kraft_file_is_read_as_it_is(tmp_path: Path) -> None:
    config = load(tmp_path, KRAFT)
    assert config.node_id == 7
    assert config.listeners == (Listener("PLAINTEXT", "PLAINTEXT", "", 9092),)
    assert config.advertised_listeners == (Listener("PLAINTEXT", "PLAINTEXT", "broker.example", 9092),)
    assert config.log_dirs == (Path("/tmp/one"), Path("/tmp/two"))
    assert config.num_partitions == 4
    assert config["log.retention.ms"] == 24 * 3600 * 1000
    assert config["log.roll.ms"] == 168 * 3600 * 1000
    assert len(config.warnings) == 2
    assert "process.roles" in config.warnings[0]
    assert "no KRaft controller here" in config.warnings[1]


def test_without_a_file() -> None:
    config = BrokerConfig.load()
    assert config.listeners == (Listener("PLAINTEXT", "PLAINTEXT", "127.0.0.1", 9092),)
    assert not config.listeners[0].is_public
    assert config.log_dirs == (Path("millstream-data"),)
    assert config.node_id == 1
    assert config.queued_request_size_bytes_max >= config.request_size_bytes_max
    assert config.warnings == ()


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, KRAFT, num_partitions="9", log_retention_ms="5")
    assert config.num_partitions == 9
    assert config["log.retention.ms"] == 5
    assert config.texts["log.retention.hours"] == "24"


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("num.partition=3", "line 1: num.partition is no config that is known here; is it meant to be num.partitions?"),
        ("\n\nlog.dir.s=3", "line 3: log.dir.s is no config"),
        ("qwertz=1", "qwertz is no config that is known here"),
        ("zookeeper.connect=h:2181", "zookeeper.connect has no effect any more"),
        ("num.io.threads=1", "accepted and have no effect here: num.io.threads"),
        ("listener.name.plaintext.ssl.keystore.type=PEM", "accepted and have no effect here"),
        ("listeners=PLAINTEXT://:9092", "told the host this.example"),
    ],
)
def test_warnings(tmp_path: Path, text: str, warning: str) -> None:
    config = load(tmp_path, text)
    assert len(config.warnings) == 1
    assert warning in config.warnings[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "a=1\nnum.partitions=none",
            "line 2: Invalid value none for configuration num.partitions: Not a number of type INT",
        ),
        ("num.partitions=0", "line 1: Invalid value 0 for configuration num.partitions: Value must be at least 1"),
        ("broker.id=1\nnode.id=2", "line 1: node.id is 2 and broker.id is 1"),
        ("log.dirs=a,,b", "line 1: log.dirs has an empty entry"),
        (
            "group.consumer.session.timeout.ms=1000",
            (
                "line 1: group.consumer.session.timeout.ms must be greater than or equal to "
                "group.consumer.min.session.timeout.ms"
            ),
        ),
        (
            "group.consumer.max.heartbeat.interval.ms=1",
            (
                "line 1: group.consumer.max.heartbeat.interval.ms must be greater than or equal to "
                "group.consumer.min.heartbeat.interval.ms"
            ),
        ),
        (
            "group.consumer.assignment.interval.ms=15001",
            (
                "line 1: group.consumer.assignment.interval.ms must be less than or equal to "
                "group.consumer.max.assignment.interval.ms"
            ),
        ),
        (
            "group.consumer.max.heartbeat.interval.ms=60000\ngroup.consumer.heartbeat.interval.ms=45000",
            "line 2: group.consumer.heartbeat.interval.ms must be less than group.consumer.session.timeout.ms",
        ),
        ("log.dirs=a,a", "line 1: log.dirs names a twice"),
        ("listeners=", "line 1: listeners names no listener"),
        ("listeners=127.0.0.1:9092", "line 1: .*expected NAME://HOST:PORT"),
        ("listeners=PLAINTEXT://h:99999", "99999 is no port"),
        ("listeners=PLAINTEXT://a:1,PLAINTEXT://b:2", "the listener name PLAINTEXT comes twice"),
        (
            "listener.security.protocol.map=A:PLAINTEXT,B:PLAINTEXT\nlisteners=A://h:1,B://i:1",
            "line 2: .*port 1 comes twice",
        ),
        ("listeners=NAME://h:1", "gives NAME no security protocol"),
        ("listeners=SASL_SSL://h:1", "SASL_SSL is not served yet"),
        ("listener.security.protocol.map=A:TLS", "TLS is none of"),
        ("listener.security.protocol.map=A", "expected LISTENER:PROTOCOL"),
        ("advertised.listeners=OTHER://h:1", "gives OTHER no security protocol"),
        ("advertised.listeners=SSL://h:1", "listeners has no SSL"),
        ("advertised.listeners=PLAINTEXT://0.0.0.0:1", "clients cannot connect to a wildcard"),
        ("listeners=CONTROLLER://:1\ncontroller.listener.names=CONTROLLER", "listeners names no listener"),
        ("process.roles=controller", "this is no broker's configuration"),
        ("authorizer.class.name=x.Y", "line 1: authorizer.class.name is set, and nothing here obeys it"),
        ("max.connections.per.ip.overrides=h", "h is not ADDRESS:COUNT"),
        ("a=\\u1", "line 1: "),
    ],
)
def test_a_bad_value_stops_with_file_line_and_reason(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/server.properties,? (line|).*{reason}"):
        load(tmp_path, text)


def test_a_bad_value_on_the_command_line() -> None:
    with pytest.raises(ConfigError, match=r"^command line: Invalid value x for configuration num\.partitions"):
        BrokerConfig.load(None, {"num.partitions": "x"})


def test_ipv6_and_port_0() -> None:
    config = BrokerConfig.load(None, {"listeners": "PLAINTEXT://[::1]:0"})
    assert config.listeners[0] == Listener("PLAINTEXT", "PLAINTEXT", "::1", 0)
    assert str(config.listeners[0]) == "PLAINTEXT://[::1]:0"
    both = {"listener.security.protocol.map": "A:PLAINTEXT,B:PLAINTEXT", "listeners": "A://127.0.0.1:9,B://[::1]:9"}
    assert len(BrokerConfig.load(None, both).listeners) == 2


@pytest.mark.parametrize(
    ("host", "public"), [("127.0.0.1", False), ("localhost", False), ("[::1]", False), ("", True), ("10.0.0.1", True)]
)
def test_public_addresses(host: str, public: bool) -> None:
    config = BrokerConfig.load(None, {"listeners": f"PLAINTEXT://{host}:9092"}, host_name=lambda: "h")
    assert config.listeners[0].is_public is public


def test_dynamic_configs_go_over_the_file() -> None:
    config = BrokerConfig.load(None, {"max.connections": "5", "num.partitions": "2"})
    after = config.with_dynamic(
        {
            "": {"max.connections": "6", "log.retention.ms": "7", "num.partitions": "9"},
            "1": {"max.connections": "8", "log.segment.bytes": "not a number", "unheard.of": "x"},
            "2": {"log.retention.ms": "1"},
        }
    )
    assert (after["max.connections"], after["log.retention.ms"], after.num_partitions) == (8, 7, 2)
    assert after["log.segment.bytes"] == 1024**3
    assert config["max.connections"] == 5


def test_limits_of_single_addresses() -> None:
    config = BrokerConfig.load(None, {"max.connections.per.ip.overrides": "10.0.0.1:5, fe80::1:7"})
    assert config.max_connections_per_ip_overrides == {"10.0.0.1": 5, "fe80::1": 7}


def test_request_memory_is_never_endless() -> None:
    assert BrokerConfig.load(None, {"queued.max.request.bytes": "-1"}).queued_request_size_bytes_max == 100 * 2**20
    config = BrokerConfig.load(None, {"queued.max.request.bytes": "5", "socket.request.max.bytes": "1000"})
    assert config.queued_request_size_bytes_max == 1000
