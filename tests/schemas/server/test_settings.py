"""The configuration: Confluent's names, and sentences for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.certificates import make_certificates

from millstream.core.config import CONSUMER_CONFIGS, ConfigError
from millstream.schemas.server.settings import Listener, RegistryConfig

BOOTSTRAP = {"kafkastore.bootstrap.servers": "127.0.0.1:9092"}


def test_a_file_of_confluents_will_do(tmp_path: Path) -> None:
    file = tmp_path / "schema-registry.properties"
    file.write_text(
        "listeners=http://0.0.0.0:8081\n"
        "kafkastore.bootstrap.servers=PLAINTEXT://one:9092,SASL_SSL://two:9093\n"
        "kafkastore.topic=_schemas\n"
        "kafkastore.security.protocol=SASL_SSL\n"
        "kafkastore.sasl.mechanism=PLAIN\n"
        "host.name=schemas-1\n"
        "debug=false\n"
        "schema.compatibility.level=full\n"
    )
    config = RegistryConfig.load(file, {"schema.search.max.limit": "50"})
    assert config.integer("schema.search.max.limit") == 50
    assert config.ignored == ("debug",)
    assert config.advertised(8081) == Listener("http", config.listener.address._replace(host="schemas-1"))
    client = config.client(CONSUMER_CONFIGS, **{"group.id": "g"})
    assert client["bootstrap.servers"] == "one:9092,two:9093"
    assert (client["security.protocol"], client["sasl.mechanism"], client["group.id"]) == ("SASL_SSL", "PLAIN", "g")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"kafkastore.timout.ms": "1"}, "kafkastore.timeout.ms"),
        ({"kafkastore.timeout.ms": "soon"}, "kafkastore.timeout.ms"),
        ({"listeners": "ftp://x:1"}, "http://"),
        ({"listeners": "http://a:1,http://b:2"}, "give one"),
        ({"listeners": "https://a:1"}, r"ssl\.certificate\.location"),
        ({"authentication.method": "BASIC"}, r"authentication\.users\.location"),
        ({"ssl.client.authentication": "REQUIRED"}, r"ssl\.client\.ca\.location"),
        ({"schema.compatibility.level": "SIDEWAYS"}, r"schema\.compatibility\.level"),
        ({"kafkastore.bootstrap.servers": ""}, "--bootstrap"),
    ],
)
def test_what_is_wrong_is_said(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        RegistryConfig.load(None, BOOTSTRAP | given)


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "r.properties"
    file.write_text("\nkafkastore.timeout.ms=soon\n")
    with pytest.raises(ConfigError, match=r"r\.properties:2"):
        RegistryConfig.load(file, BOOTSTRAP)


def test_passwords_are_not_shown() -> None:
    config = RegistryConfig.load(None, BOOTSTRAP | {"ssl.key.password": "secret"})
    assert "secret" not in str(config.shown())
    assert config.shown()["kafkastore.timeout.ms"] == 10_000


def test_a_file_of_tls_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    missing, broken = tmp_path / "missing.pem", tmp_path / "broken.pem"
    broken.write_text("no certificate")
    right = {"listeners": "https://127.0.0.1:0", "ssl.certificate.location": str(certificates.server)}
    assert RegistryConfig.load(None, BOOTSTRAP | right).server_tls() is not None
    assert RegistryConfig.load(None, BOOTSTRAP).server_tls() is None
    for name, others in (
        ("ssl.certificate.location", right),
        ("ssl.client.ca.location", right | {"ssl.client.authentication": "REQUIRED"}),
    ):
        for file in (missing, broken):
            config = RegistryConfig.load(None, BOOTSTRAP | others | {name: str(file)})
            with pytest.raises(ConfigError, match=f"{name}={file}: "):
                config.server_tls()
    with pytest.raises(ConfigError, match=rf"inter\.instance\.ca\.location={missing}: No such file"):
        RegistryConfig.load(None, BOOTSTRAP | {"inter.instance.ca.location": str(missing)}).leader_tls()
