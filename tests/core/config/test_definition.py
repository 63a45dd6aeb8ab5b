"""Config types: what text is a value, and how values are shown. core/cluster/test_topics asks Kafka for its words."""

from __future__ import annotations

import pytest

from millstream.core.config import ConfigDef, ConfigError, ConfigKey, ConfigType, ConfigValue
from millstream.core.config.definition import between


def key(kind: ConfigType, default: ConfigValue = None) -> ConfigKey:
    """Return a config of a type."""
    return ConfigKey(name="x", type=kind, default=default, doc="x")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (ConfigType.BOOLEAN, " True ", True),
        (ConfigType.INT, "2147483647", 2**31 - 1),
        (ConfigType.INT, "-2147483648", -(2**31)),
        (ConfigType.SHORT, "-32768", -32768),
        (ConfigType.LONG, "9223372036854775807", 2**63 - 1),
        (ConfigType.LONG, "+007", 7),
        (ConfigType.INT, "\u0663", 3),
        (ConfigType.DOUBLE, ".5", 0.5),
        (ConfigType.DOUBLE, "1e3", 1000.0),
        (ConfigType.DOUBLE, "5.d", 5.0),
        (ConfigType.DOUBLE, "-0x1p-1", -0.5),
        (ConfigType.LIST, "a ,b,, c", ["a", "b", "", "c"]),
        (ConfigType.LIST, "  ", []),
        (ConfigType.STRING, " a b ", "a b"),
        (ConfigType.CLASS, "java.lang.String", "java.lang.String"),
        (ConfigType.PASSWORD, "secret", "secret"),
    ],
)
def test_values(kind: ConfigType, text: str, value: ConfigValue) -> None:
    parsed = key(kind).parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (ConfigType.BOOLEAN, "yes"),
        (ConfigType.INT, "2147483648"),
        (ConfigType.INT, "1.0"),
        (ConfigType.INT, "0x10"),
        (ConfigType.INT, "1_000"),
        (ConfigType.INT, "9" * 100_000),
        (ConfigType.SHORT, "32768"),
        (ConfigType.LONG, "-9223372036854775809"),
        (ConfigType.LONG, ""),
        (ConfigType.DOUBLE, "NaN"),
        (ConfigType.DOUBLE, "0x.p1"),
        (ConfigType.DOUBLE, "0x1p99999"),
        (ConfigType.DOUBLE, "1,5"),
    ],
)
def test_what_is_no_value(kind: ConfigType, text: str) -> None:
    with pytest.raises(ConfigError, match=r"Invalid value .* for configuration x: (Not a number|Expected)") as raised:
        key(kind).parse(text)
    assert raised.value.name == "x"


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (ConfigType.BOOLEAN, True, "true"),
        (ConfigType.DOUBLE, 0.5, "0.5"),
        (ConfigType.DOUBLE, 1.7976931348623157e308, "1.7976931348623157E308"),
        (ConfigType.DOUBLE, 1e300, "1.0E300"),
        (ConfigType.DOUBLE, -12345678.5, "-1.23456785E7"),
        (ConfigType.DOUBLE, 9999999.0, "9999999.0"),
        (ConfigType.DOUBLE, 0.00025, "2.5E-4"),
        (ConfigType.LIST, ["a", "b"], "a,b"),
        (ConfigType.LIST, [], ""),
        (ConfigType.LONG, 5, "5"),
        (ConfigType.STRING, None, None),
        (ConfigType.PASSWORD, "secret", None),
    ],
)
def test_shown(kind: ConfigType, value: ConfigValue, text: str | None) -> None:
    assert key(kind).render(value) == text


def test_a_table_refuses_what_it_could_not_keep() -> None:
    with pytest.raises(AssertionError, match="defined twice"):
        ConfigDef([key(ConfigType.INT), key(ConfigType.LONG)])
    with pytest.raises(ConfigError, match="at least 1"):
        ConfigDef([ConfigKey(name="x", type=ConfigType.INT, default=0, doc="x", validator=between(1, 2))])
    with pytest.raises(ConfigError, match="Unknown configuration: y"):
        ConfigDef([key(ConfigType.INT)]).parse("y", "1")
