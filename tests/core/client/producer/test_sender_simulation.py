"""The sender in a simulated cluster, over seeds: nothing acknowledged is lost, nothing written twice, order is kept.

To run one seed again: pytest tests/core/client/producer/test_sender_simulation.py -k "name and seed17"
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from tests.support.producer_cluster import Simulation

from millstream.core.client.producer.settings import ProducerSettings
from millstream.core.records import Compression

SEEDS = range(400 if os.environ.get("MILLSTREAM_SOAK") == "1" else 15)

SETTINGS = ProducerSettings(
    batch_size=1_500,
    max_request_size=4_000,
    buffer_memory=60_000,
    linger_ms=30,
    delivery_timeout_ms=30_000,
    request_timeout_ms=5_000,
)

seeds = pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"seed{seed}")


@seeds
@pytest.mark.parametrize("compression", [Compression.NONE, Compression.LZ4])
def test_every_record_arrives_once_and_in_order(seed: int, compression: Compression) -> None:
    simulation = Simulation(seed, replace(SETTINGS, compression=compression))
    simulation.run()
    simulation.check(exactly_once=True, in_order=True)
    failed = [handle for _, _, handle in simulation.sent if handle.exception() is not None]
    assert not failed, failed[0]


@seeds
def test_records_that_run_out_of_time_leave_the_others_in_order(seed: int) -> None:
    settings = replace(SETTINGS, delivery_timeout_ms=400, request_timeout_ms=200)
    simulation = Simulation(seed, settings, fault_rate=0.4)
    simulation.run()
    simulation.check(exactly_once=True, in_order=True)


@seeds
def test_records_that_are_refused_leave_no_hole(seed: int) -> None:
    simulation = Simulation(seed, SETTINGS, poison_rate=0.03)
    simulation.run()
    for _, value, handle in simulation.sent:
        if value == b"poison":
            assert handle.exception() is not None
    assert any(handle.exception() is None for _, _, handle in simulation.sent)
    simulation.check(exactly_once=True, in_order=True)


@seeds
@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP])
def test_batches_that_are_too_large_are_split(seed: int, compression: Compression) -> None:
    simulation = Simulation(seed, replace(SETTINGS, compression=compression), batch_bytes_max=500)
    simulation.run()
    simulation.check(exactly_once=True, in_order=True)
    assert simulation.sender.metrics.batch_splits
    assert all(handle.exception() is None for _, _, handle in simulation.sent)


@seeds
def test_requests_of_a_broken_connection_that_are_handled_late_write_nothing_twice(seed: int) -> None:
    simulation = Simulation(seed, SETTINGS, late_rate=0.3)
    simulation.run()
    simulation.check(exactly_once=True, in_order=True)


@seeds
def test_one_request_in_flight_keeps_the_order_without_idempotence(seed: int) -> None:
    settings = replace(SETTINGS, is_idempotent=False, in_flight_max=1)
    simulation = Simulation(seed, settings)
    simulation.run()
    simulation.check(exactly_once=False, in_order=False)
    for log in simulation.logs:
        first = list(dict.fromkeys(log.values))
        numbers = [int(value.split(b":")[0]) for value in first]
        assert numbers == sorted(numbers)


@seeds
@pytest.mark.parametrize("acks", [0, 1])
def test_without_idempotence_all_handles_end(seed: int, acks: int) -> None:
    simulation = Simulation(seed, replace(SETTINGS, is_idempotent=False, acks=acks))
    simulation.run()
    simulation.check(exactly_once=False, in_order=False)


def test_a_closed_sender_ends_everything() -> None:
    simulation = Simulation(1, SETTINGS, records=50, fault_rate=1.0, calm_at_ms=float("inf"))
    simulation.close()
    assert simulation.accumulator.used_bytes == 0
