"""Thread pools change while a broker runs by steps from half to double, whether or not they exist here."""

from __future__ import annotations

import pytest

from millstream.core.config import BrokerConfig, ConfigError, validate_dynamic_configs


def refusal(config: BrokerConfig, name: str, value: str) -> str | None:
    """What is said against giving a broker this value."""
    try:
        validate_dynamic_configs({name: value}, current=config, per_broker=False)
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("name", "now"),
    [
        ("background.threads", 10),
        ("num.io.threads", 8),
        ("num.network.threads", 3),
        ("num.recovery.threads.per.data.dir", 2),
        ("num.replica.fetchers", 1),
    ],
)
def test_half_to_double_of_what_holds_now(name: str, now: int) -> None:
    default = BrokerConfig()
    assert [refusal(default, name, str(count)) for count in (max(now // 2, 1), now, now * 2)] == [None] * 3
    assert f"not be greater than double the current value {now} " in str(refusal(default, name, str(now * 2 + 1)))
    for config in (
        BrokerConfig({name: "20"}),
        default.with_dynamic({"": {name: "5"}, str(default.node_id): {name: "20"}}),
        BrokerConfig({name: "20"}).with_dynamic({}),
    ):
        assert refusal(config, name, "40") is None
        assert refusal(config, name, "10") is None
        assert "at least half the current value 20 " in str(refusal(config, name, "9"))


@pytest.mark.parametrize("value", ["0", "-1", "x", ""])
def test_no_size_of_a_pool(value: str) -> None:
    assert refusal(BrokerConfig(), "num.io.threads", value) is not None
