"""The sender's answers to single events, told step by step; the simulation has what comes of them together."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest
from tests.core.client.producer.test_sender_simulation import SETTINGS
from tests.support.producer_cluster import TOPIC, Log, Simulation

from millstream.core._kernels.record_accumulator import Appender, RecordAccumulator, RecordHandle
from millstream.core.client.cluster import BrokerNode, Cluster, PartitionInfo, TopicInfo, TopicPartition
from millstream.core.client.producer.batch import Batch
from millstream.core.client.producer.effects import (
    AskMetadata,
    AskProducerId,
    Connect,
    Effect,
    Outcome,
    SendRequest,
)
from millstream.core.client.producer.sender import EPOCH_MAX, Sender
from millstream.core.client.producer.settings import ProducerSettings
from millstream.core.net import Address
from millstream.core.records import read_header
from millstream.core.wire import ErrorCode, KafkaError

FIRST = TopicPartition(TOPIC, 0)


class Stage:
    """A sender of one topic with two partitions, led by nodes 0 and 1, both connected, with a producer id."""

    def __init__(self, settings: ProducerSettings = SETTINGS) -> None:
        self.now_ms = 1_000.0
        self.accumulator = RecordAccumulator(
            lambda topic, partition, buffer: Batch(topic, partition, buffer, self.now_ms, -1),
            lambda _topic: 0,
            lambda: None,
            lambda size: KafkaError(ErrorCode.MESSAGE_TOO_LARGE, str(size)),
            buffer_memory=settings.buffer_memory,
            batch_size=settings.batch_size,
            record_size_max=settings.max_request_size,
        )
        self.accumulator.set_partitions(TOPIC, 2)
        self.append = Appender(self.accumulator, lambda *_: None).send
        self.sender = Sender(settings, self.accumulator)
        self.tell_leaders(0, 1)

    def tell_leaders(self, *leaders: int, epoch: int = 0) -> None:
        self.sender.note_cluster(
            Cluster(
                brokers={node: BrokerNode(node, Address("broker", 9000 + node)) for node in range(2)},
                topics={
                    TOPIC: TopicInfo(
                        TOPIC,
                        bytes(16),
                        is_internal=False,
                        partitions=tuple(
                            PartitionInfo(index, leader, epoch, (), (), ()) for index, leader in enumerate(leaders)
                        ),
                    )
                },
            ),
            [TOPIC],
        )

    def send(self, value: bytes = b"v", partition: int = 0) -> RecordHandle:
        """Send one record in a batch of its own."""
        handle = self.append(TOPIC, value, partition=partition, timestamp_ms=5)
        self.sender.is_hurried = True
        return handle

    def turn(self, after_ms: float = 0) -> list[Effect]:
        """Poll after some time, until connections and ids are had; return the other effects."""
        self.now_ms += after_ms
        others: list[Effect] = []
        while True:
            self.sender.poll(self.now_ms)
            effects = self.sender.take_effects()
            for effect in effects:
                match effect:
                    case Connect(node):
                        self.sender.node_ready(node)
                    case AskProducerId():
                        self.sender.handle_producer_id(77, 0)
                    case _:
                        others.append(effect)
            if not any(isinstance(effect, Connect | AskProducerId) for effect in effects):
                return others

    def request(self, after_ms: float = 0) -> SendRequest:
        """Turn, and return the one request that goes out."""
        (request,) = self.turn(after_ms)
        assert isinstance(request, SendRequest)
        return request

    def answer(self, request: SendRequest, outcome: Outcome, *, throttle_ms: int = 0) -> None:
        outcomes = {TopicPartition(batch.topic, batch.partition): outcome for batch in request.batches}
        self.sender.handle_response(request, outcomes, throttle_ms, self.now_ms)

    def refuse(self, request: SendRequest, code: ErrorCode) -> None:
        self.answer(request, Outcome(KafkaError(code)))


def numbers(request: SendRequest) -> tuple[int, int, int]:
    """Return the producer id, epoch and sequence that the first batch goes out with."""
    header = read_header(request.batches[0].stamped())
    return header.producer_id, header.producer_epoch, header.base_sequence


def test_sequences_follow_each_other_and_a_retry_keeps_its_own() -> None:
    stage = Stage()
    stage.send()
    first = stage.request()
    assert numbers(first) == (77, 0, 0)
    stage.answer(first, Outcome(None, 10))
    stage.send()
    second = stage.request()
    stage.send()
    third = stage.request()
    assert [numbers(request)[2] for request in (second, third)] == [1, 2]
    stage.refuse(second, ErrorCode.NOT_ENOUGH_REPLICAS)
    assert stage.turn() == []
    stage.refuse(third, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER)
    again = [effect for effect in stage.turn(5_000) if isinstance(effect, SendRequest)]
    assert [numbers(request) for request in again] == [(77, 0, 1), (77, 0, 2)]


def test_at_most_five_are_in_flight() -> None:
    stage = Stage()
    handle = stage.send()
    stage.answer(stage.request(), Outcome(None, 0))
    assert handle.done()
    sent = []
    for _ in range(8):
        stage.send()
        sent += stage.turn()
    assert len(sent) == 5
    assert stage.sender.requests_in_flight == 5


def test_a_duplicate_is_a_success_without_an_offset() -> None:
    stage = Stage()
    handle = stage.send()
    stage.refuse(stage.request(), ErrorCode.DUPLICATE_SEQUENCE_NUMBER)
    assert handle.result().offset == -1


@pytest.mark.parametrize(
    "code",
    [
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
        ErrorCode.UNKNOWN_PRODUCER_ID,
        ErrorCode.INVALID_PRODUCER_EPOCH,
    ],
)
def test_lost_sequences_begin_a_new_epoch(code: ErrorCode) -> None:
    stage = Stage()
    stage.send()
    stage.answer(stage.request(), Outcome(None, 10))
    stage.send()
    refused = stage.request()
    assert numbers(refused) == (77, 0, 1)
    stage.refuse(refused, code)
    assert numbers(stage.request(5_000)) == (77, 1, 0)


def test_the_last_epoch_is_followed_by_a_new_producer_id() -> None:
    stage = Stage()
    stage.sender.handle_producer_id(76, EPOCH_MAX)
    stage.send()
    stage.refuse(stage.request(), ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER)
    assert numbers(stage.request(5_000)) == (77, 0, 0)


def test_a_record_that_is_refused_gives_its_sequence_to_the_next() -> None:
    stage = Stage()
    bad = stage.send()
    stage.refuse(stage.request(), ErrorCode.INVALID_RECORD)
    error = bad.exception()
    assert isinstance(error, KafkaError)
    assert error.code is ErrorCode.INVALID_RECORD
    stage.send()
    assert numbers(stage.request()) == (77, 0, 0)


def test_a_record_that_may_have_been_written_leaves_its_epoch_behind() -> None:
    stage = Stage(replace(SETTINGS, retries=0))
    lost = stage.send()
    stage.sender.handle_failure(stage.request(), KafkaError(ErrorCode.NETWORK_EXCEPTION), stage.now_ms)
    assert lost.exception() is not None
    stage.tell_leaders(0, 1)
    stage.send()
    assert numbers(stage.request(5_000)) == (77, 1, 0)


def test_an_answer_that_comes_late_closes_the_hole() -> None:
    stage = Stage(replace(SETTINGS, delivery_timeout_ms=500))
    stage.send()
    stage.answer(stage.request(), Outcome(None, 10))
    late = stage.send()
    slow = stage.request()
    stage.now_ms += 300
    next_one = stage.send()
    behind = stage.request()
    assert stage.turn(250) == []
    assert late.done()
    assert not next_one.done()
    stage.answer(slow, Outcome(None, 11))
    stage.answer(behind, Outcome(None, 12))
    assert next_one.result().offset == 12
    stage.send()
    assert numbers(stage.request()) == (77, 0, 3)


@pytest.mark.parametrize("code", [ErrorCode.CLUSTER_AUTHORIZATION_FAILED, ErrorCode.PRODUCER_FENCED])
def test_an_error_that_nothing_survives_ends_everything(code: ErrorCode) -> None:
    stage = Stage()
    handles = [stage.send(partition=0), stage.send(partition=1)]
    requests = [effect for effect in stage.turn() if isinstance(effect, SendRequest)]
    stage.refuse(requests[0], code)
    for handle in handles:
        error = handle.exception()
        assert isinstance(error, KafkaError)
        assert error.code is code
    with pytest.raises(KafkaError, match=code.name):
        stage.append(TOPIC, b"v", partition=0)
    stage.refuse(requests[1], ErrorCode.NOT_LEADER_OR_FOLLOWER)
    assert stage.turn() == []
    assert stage.accumulator.used_bytes == 0


def test_a_producer_id_that_is_refused_ends_everything() -> None:
    stage = Stage()
    handle = stage.send()
    stage.sender.poll(stage.now_ms)
    stage.sender.producer_id_failed(KafkaError(ErrorCode.CLUSTER_AUTHORIZATION_FAILED), stage.now_ms)
    assert handle.done()


def test_a_leader_named_in_an_answer_is_followed_at_once() -> None:
    stage = Stage()
    stage.send()
    moved = KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
    stage.answer(stage.request(), Outcome(moved, leader=1, leader_epoch=4))
    effects = stage.turn()
    assert [effect.node for effect in effects if isinstance(effect, SendRequest)] == [1]
    # Metadata that is older than the answer doesn't take it back.
    stage.tell_leaders(0, 1, epoch=3)
    stage.send()
    stage.answer(next(effect for effect in effects if isinstance(effect, SendRequest)), Outcome(None, 0))
    assert stage.request().node == 1


def test_a_moved_partition_waits_for_its_metadata_and_for_what_is_in_flight() -> None:
    stage = Stage()
    stage.send()
    stage.answer(stage.request(), Outcome(None, 0))
    stage.send()
    on_old = stage.request()
    stage.tell_leaders(1, 1, epoch=1)
    stage.send()
    assert stage.turn() == []
    stage.refuse(on_old, ErrorCode.NOT_LEADER_OR_FOLLOWER)
    effects = stage.turn(5_000)
    assert any(isinstance(effect, AskMetadata) for effect in effects)
    requests = [effect for effect in effects if isinstance(effect, SendRequest)]
    assert [request.node for request in requests] == [1, 1]
    assert [numbers(request)[2] for request in requests] == [1, 2]


def test_a_broker_that_throttles_is_left_alone() -> None:
    stage = Stage()
    stage.send()
    stage.answer(stage.request(), Outcome(None, 0), throttle_ms=700)
    stage.send()
    assert stage.turn(600) == []
    assert stage.sender.wake_at_ms == pytest.approx(stage.now_ms + 100)
    assert isinstance(stage.request(100), SendRequest)


def test_batches_wait_for_their_linger_only_while_they_may() -> None:
    stage = Stage()
    stage.append(TOPIC, b"v", partition=0, timestamp_ms=5)
    assert stage.turn(SETTINGS.linger_ms - 1) == []
    assert stage.sender.wake_at_ms == pytest.approx(stage.now_ms + 1)
    assert len(stage.request(1).batches) == 1


def test_batches_of_one_leader_travel_together_within_the_size_of_a_request() -> None:
    stage = Stage(replace(SETTINGS, max_request_size=1_700))
    stage.tell_leaders(0, 0)
    stage.send(bytes(1_000), 0)
    stage.send(bytes(1_000), 1)
    requests = [effect for effect in stage.turn() if isinstance(effect, SendRequest)]
    assert [len(request.batches) for request in requests] == [1, 1]
    for request in requests:
        stage.answer(request, Outcome(None, 0))
    stage.send(bytes(100), 0)
    stage.send(bytes(100), 1)
    assert len(stage.request().batches) == 2


def test_sockets_that_are_full_hold_requests_back() -> None:
    stage = Stage()
    stage.send()
    stage.answer(stage.request(), Outcome(None, 0))
    stage.sender.set_paused(0, True)
    stage.send()
    assert stage.turn() == []
    stage.sender.set_paused(0, False)
    assert len(stage.request().batches) == 1


def test_brokers_that_forget_producers_end_no_handle_in_between() -> None:
    simulation = Simulation(3, SETTINGS, fault_rate=0)

    def forget() -> None:
        for log in simulation.logs:
            for producer_id, (epoch, _) in log.producers.items():
                log.producers[producer_id] = (epoch, deque([(9_999, 1, 0)]))

    for at_ms in (1_000, 2_000, 3_000):
        simulation._at(at_ms, forget)
    simulation.run()
    simulation.check(exactly_once=True, in_order=True)
    assert all(handle.exception() is None for _, _, handle in simulation.sent)
    assert any(epoch > 0 for log in simulation.logs for epoch, _ in log.producers.values())


def test_queue_sizes_leave_out_brokers_that_take_nothing() -> None:
    stage = Stage(replace(SETTINGS, availability_timeout_ms=1_000))
    stage.send()
    stage.answer(stage.request(), Outcome(None, 0))
    assert stage.sender.queue_sizes(TOPIC, 2, stage.now_ms) == [(0, 0), (1, 0)]
    stage.sender.set_paused(0, True)
    stage.send()
    stage.turn()
    assert stage.sender.queue_sizes(TOPIC, 2, stage.now_ms) == [(0, 1), (1, 0)]
    assert stage.sender.queue_sizes(TOPIC, 2, stage.now_ms + 1_001) == [(1, 0)]


def test_the_simulated_log_is_strict() -> None:
    log = Log()
    stage = Stage()
    stage.send()
    first = stage.request().batches[0].stamped()
    assert log.append(first, 1_000).base_offset == 0
    assert log.append(first, 1_000).base_offset == 0
    assert len(log.values) == 1
