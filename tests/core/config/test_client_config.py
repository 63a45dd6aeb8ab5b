"""What a user gives a client, as names and values."""

from __future__ import annotations

import pickle

import pytest

from millstream.core.config import CONSUMER_CONFIGS, PRODUCER_CONFIGS, ClientConfig, ConfigDef, ConfigError
from millstream.core.config.client_configs import ADMIN_CONFIGS, JAVA_ONLY, WITHOUT_EFFECT

TABLES = {"producer": PRODUCER_CONFIGS, "consumer": CONSUMER_CONFIGS, "admin": ADMIN_CONFIGS}
each_table = pytest.mark.parametrize("definition", TABLES.values(), ids=TABLES)


def test_names_are_taken_in_both_spellings() -> None:
    by_keyword = ClientConfig.load(PRODUCER_CONFIGS, "127.0.0.1:9092", {"linger_ms": 20, "enable_idempotence": False})
    by_name = ClientConfig.load(
        PRODUCER_CONFIGS, {"bootstrap.servers": ["127.0.0.1:9092"], "linger.ms": "20", "enable.idempotence": "false"}
    )
    for config in (by_keyword, by_name):
        assert config.integer("linger.ms") == 20
        assert config.boolean("enable.idempotence") is False
        assert config.strings("bootstrap.servers") == ["127.0.0.1:9092"]
        assert config.seconds("request.timeout.ms") == 30.0
        assert config.given == {"bootstrap.servers", "linger.ms", "enable.idempotence"}


def test_keywords_go_before_the_mapping_and_none_leaves_the_default() -> None:
    given = {"bootstrap.servers": "a:1", "group.id": "first", "session.timeout.ms": 1}
    config = ClientConfig.load(CONSUMER_CONFIGS, given, {"group_id": "second", "session_timeout_ms": None})
    assert config.string("group.id") == "second"
    assert config.integer("session.timeout.ms") == 45_000


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("linger_mss", 5, "Unknown configuration: linger.mss; did you mean linger.ms?"),
        ("zzzzz", 5, "Unknown configuration: zzzzz"),
        ("key_serializer", "x", "key.serializer has no meaning here: keys and values are bytes here"),
        ("acks", 3, "Invalid value 3 for configuration acks: String must be one of: all, -1, 0, 1"),
        ("acks", b"1", "Invalid value bytes for configuration acks: it is given as text"),
        ("batch_size", "big", "Invalid value big for configuration batch.size: Not a number of type INT"),
        ("linger_ms", -1, "Invalid value -1 for configuration linger.ms: Value must be at least 0"),
        ("security_protocol", "TLS", "Invalid value TLS for configuration security.protocol"),
        (
            "ssl_truststore_type",
            "JKS",
            "Invalid value JKS for configuration ssl.truststore.type: only PEM is read here",
        ),
        ("sasl_login_refresh_window_factor", 0.1, "it lies between 0.5 and 1.0"),
    ],
)
def test_what_cannot_be_says_so(name: str, value: object, sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        ClientConfig.load(PRODUCER_CONFIGS, "127.0.0.1:9092", {name: value})  # type: ignore[dict-item]
    assert sentence in str(raised.value)
    assert raised.value.name == name.replace("_", ".")
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


@pytest.mark.parametrize("policy", ["earliest", "latest", "none", "by_duration:PT12H"])
def test_reset_policies(policy: str) -> None:
    config = ClientConfig.load(CONSUMER_CONFIGS, "a:1", {"auto_offset_reset": policy})
    assert config.string("auto.offset.reset") == policy
    with pytest.raises(ConfigError, match="by_duration:PT12H"):
        ClientConfig.load(CONSUMER_CONFIGS, "a:1", {"auto_offset_reset": f"{policy}x".removesuffix("PT12Hx")})


@each_table
def test_a_client_needs_a_broker_to_ask(definition: ConfigDef) -> None:
    nothings: tuple[str | list[str] | dict[str, str] | None, ...] = (None, "", [], {})
    for nothing in nothings:
        with pytest.raises(ConfigError, match="No bootstrap servers"):
            ClientConfig.load(definition, nothing)


@each_table
def test_what_a_java_client_may_also_be_told_harms_nobody(definition: ConfigDef) -> None:
    config = ClientConfig.load(definition, {"bootstrap.servers": "a:1", **dict.fromkeys(WITHOUT_EFFECT, "1")})
    assert config.given == {"bootstrap.servers"}
    assert not WITHOUT_EFFECT & set(definition)
    assert not set(JAVA_ONLY) & set(definition)


def test_secrets_are_not_shown() -> None:
    config = ClientConfig.load(PRODUCER_CONFIGS, "a:1", {"sasl_username": "ann", "sasl_password": "opensesame"})
    assert "ann" in repr(config)
    assert "opensesame" not in repr(config)
    assert config.string_or_none("sasl.password") == "opensesame"
