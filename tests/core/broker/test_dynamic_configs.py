"""Broker configs that change while it runs: what a client or an operator sees of it, at once and after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.broker import Broker
from millstream.core.config import BROKER_CONFIGS
from millstream.core.records import BatchBuilder
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages import incremental_alter_configs
from millstream.core.wire.messages.find_coordinator import FindCoordinatorRequest
from millstream.testing.kafka import wait_until
from millstream.testing.raw import ClosedError, RawConnection

EVERY_BROKER, THIS_BROKER = "", "1"
SET, DELETE = 0, 1


@pytest.fixture
def served(tmp_path: Path) -> Iterator[BrokerThread]:
    settings = {"log.retention.check.interval.ms": "100", "log.segment.bytes": "1048576"}
    with BrokerThread(tmp_path / "data", settings) as broker:
        yield broker


def edit(raw: RawConnection, broker: str, name: str, value: str | None) -> Any:
    config = incremental_alter_configs.AlterableConfig(
        name=name, config_operation=DELETE if value is None else SET, value=value
    )
    resource = incremental_alter_configs.AlterConfigsResource(resource_type=4, resource_name=broker, configs=[config])
    (answer,) = raw.call(incremental_alter_configs.IncrementalAlterConfigsRequest(resources=[resource])).responses
    return answer.error_code


def batch(size_bytes: int, timestamp: int = 1_700_000_000_000) -> bytes:
    builder = BatchBuilder()
    builder.append(timestamp, None, b"x" * size_bytes)
    return bytes(builder.build())


@pytest.mark.parametrize("broker", [EVERY_BROKER, THIS_BROKER])
def test_message_max_bytes_bounds_the_next_produce(broker: str, served: BrokerThread) -> None:
    with RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("bounded")
        assert raw.produce("bounded", 0, batch(5000)).error_code == 0
        assert edit(raw, broker, "message.max.bytes", "1000") == 0
        assert raw.produce("bounded", 0, batch(5000)).error_code == ErrorCode.MESSAGE_TOO_LARGE
        served.stop()
    with served, RawConnection(served.bootstrap_servers) as raw:
        assert raw.produce("bounded", 0, batch(5000)).error_code == ErrorCode.MESSAGE_TOO_LARGE
        assert edit(raw, broker, "message.max.bytes", None) == 0
        assert raw.produce("bounded", 0, batch(5000)).error_code == 0


def test_retention_of_this_broker_goes_before_that_of_all(served: BrokerThread) -> None:
    with RawConnection(served.bootstrap_servers) as raw:
        assert edit(raw, EVERY_BROKER, "log.retention.ms", "1") == 0
        assert edit(raw, THIS_BROKER, "log.retention.ms", "-1") == 0
        raw.create_topic("kept")
        assert raw.produce("kept", 0, batch(100)).error_code == 0
        served.wait(lambda broker: broker.control.tasks.run_retention())
        assert raw.offset("kept", 0, -2) == 0
        assert edit(raw, THIS_BROKER, "log.retention.ms", None) == 0
        wait_until(lambda: raw.offset("kept", 0, -2) == 1, 90, "retention")


def test_max_connections_closes_the_next_ones(served: BrokerThread) -> None:
    with RawConnection(served.bootstrap_servers) as raw:
        assert edit(raw, THIS_BROKER, "max.connections", "1") == 0
        with RawConnection(served.bootstrap_servers) as second, pytest.raises(ClosedError):
            second.topics()
        assert edit(raw, THIS_BROKER, "max.connections", None) == 0
        with RawConnection(served.bootstrap_servers) as third:
            assert third.topics() == {}


def test_recovery_threads_count_from_the_next_start(served: BrokerThread) -> None:
    with RawConnection(served.bootstrap_servers) as raw:
        assert edit(raw, EVERY_BROKER, "num.recovery.threads.per.data.dir", "4") == 0
    served.stop()
    with served:
        assert served.call(lambda broker: broker.logs._threads) == 4


def test_the_assignment_interval_holds_for_loaded_coordinators_and_those_to_come(served: BrokerThread) -> None:
    name = "group.consumer.assignment.interval.ms"

    def intervals(broker: Broker) -> set[int]:
        return {shard.configs.consumer_assignment_interval_ms for shard in broker.coordinators.shards()}

    with RawConnection(served.bootstrap_servers) as raw:
        wait_until(
            lambda: not raw.call(FindCoordinatorRequest(coordinator_keys=["g"])).coordinators[0].error_code,
            30,
            "the coordinator",
        )
        assert served.call(intervals) == {1000}
        assert edit(raw, EVERY_BROKER, name, "250") == 0
        assert served.call(intervals) == {250}
    served.stop()
    with served, RawConnection(served.bootstrap_servers) as raw:
        wait_until(lambda: served.call(intervals) == {250}, 30, "coordinators")
        assert edit(raw, EVERY_BROKER, name, None) == 0
        assert served.call(intervals) == {1000}


def test_the_assignment_interval_stays_within_its_limits(served: BrokerThread) -> None:
    name = "group.consumer.assignment.interval.ms"
    maximum = BROKER_CONFIGS[name.replace("consumer.", "consumer.max.")].default
    assert isinstance(maximum, int), maximum
    with RawConnection(served.bootstrap_servers) as raw:
        assert edit(raw, EVERY_BROKER, name, str(maximum + 1)) == ErrorCode.INVALID_REQUEST
        assert edit(raw, THIS_BROKER, name, str(maximum + 1)) == ErrorCode.INVALID_REQUEST
        assert edit(raw, EVERY_BROKER, name, str(maximum)) == 0
