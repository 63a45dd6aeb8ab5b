"""The fault proxy: what passes is what was sent, each fault does what it says, and nothing of it is left at the end."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial

import psutil
import pytest

from millstream.core.wire import APIS, ApiKey
from millstream.core.wire.messages.api_versions import ApiVersionsRequest
from millstream.core.wire.messages.describe_cluster import DescribeClusterRequest
from millstream.core.wire.messages.find_coordinator import FindCoordinatorRequest
from millstream.core.wire.messages.metadata import MetadataRequest
from millstream.testing import TestBroker, broker
from millstream.testing.advertised import NAMING_BROKERS
from millstream.testing.fault_proxy import (
    NO_FAULTS,
    At,
    Cut,
    Delay,
    Direction,
    Drop,
    FaultProxy,
    Frame,
    Hold,
    RandomFaults,
    ScriptedFaults,
    Silence,
)
from millstream.testing.kafka import free_ports, wait_until
from millstream.testing.raw import ClosedError, RawConnection

LIST = MetadataRequest(topics=[])
# Answers that never come are waited for so long.
SOON_S = 0.2


@pytest.fixture(scope="module")
def served() -> Iterator[TestBroker]:
    with broker() as running:
        yield running


@pytest.fixture(params=["millstream", pytest.param("kafka", marks=pytest.mark.java)])
def bootstrap(request: pytest.FixtureRequest) -> str:
    name = "served" if request.param == "millstream" else "apache_kafka"
    address: str = request.getfixturevalue(name).bootstrap_servers
    return address


def addresses(proxy: FaultProxy) -> set[str]:
    return set(proxy.bootstrap_servers.split(","))


def test_every_answer_names_the_proxy(bootstrap: str) -> None:
    with FaultProxy(bootstrap) as proxy, RawConnection(proxy.bootstrap_servers) as raw:
        for version in APIS[ApiKey.METADATA].versions:
            found = raw.call(LIST, version).brokers
            assert {f"{place.host}:{place.port}" for place in found} == addresses(proxy)
        for version in APIS[ApiKey.FIND_COORDINATOR].versions:
            request = FindCoordinatorRequest(key="group", coordinator_keys=["group"])
            wait_until(partial(_has_coordinator, raw, request, version), 90, "a coordinator")
            answer = raw.call(request, version)
            places = answer.coordinators if version >= 4 else [answer]
            assert {f"{place.host}:{place.port}" for place in places} == addresses(proxy)
        found = raw.call(DescribeClusterRequest()).brokers
        assert {f"{place.host}:{place.port}" for place in found} == addresses(proxy)
        assert proxy.connections == 1
        asked = ApiVersionsRequest(client_software_name="raw", client_software_version="1")
        known = {api.api_key: api.max_version for api in raw.call(asked).api_keys}
        assert all(known[key] <= APIS[key].version_max for key in NAMING_BROKERS)


def _has_coordinator(raw: RawConnection, request: FindCoordinatorRequest, version: int) -> bool:
    answer = raw.call(request, version)
    return all(found.error_code == 0 for found in (answer.coordinators or [answer]))


def test_a_real_client_stays_behind_it(bootstrap: str) -> None:
    import confluent_kafka

    topic = f"proxied-{time.monotonic_ns()}"
    with RawConnection(bootstrap) as raw:
        raw.create_topic(topic)
    with FaultProxy(bootstrap) as proxy:
        producer = confluent_kafka.Producer({"bootstrap.servers": proxy.bootstrap_servers})
        producer.produce(topic, b"x" * 100_000)
        assert producer.flush(90) == 0
        settings = {"bootstrap.servers": proxy.bootstrap_servers, "group.id": topic, "auto.offset.reset": "earliest"}
        consumer = confluent_kafka.Consumer(settings)
        consumer.subscribe([topic])
        message = consumer.poll(90)
        assert message is not None
        assert message.value() == b"x" * 100_000
        named = {f"{place.host}:{place.port}" for place in consumer.list_topics(timeout=90).brokers.values()}
        consumer.close()
        assert named == addresses(proxy)


def test_dropped_before_the_request(served: TestBroker) -> None:
    faults = ScriptedFaults(At(Drop(), ApiKey.METADATA, Direction.REQUEST, skip=1))
    with FaultProxy(served.bootstrap_servers, faults) as proxy:
        with RawConnection(proxy.bootstrap_servers) as raw:
            raw.call(LIST)
            raw.call(DescribeClusterRequest())
            with pytest.raises(ClosedError):
                raw.call(LIST)
        assert faults.is_over
        assert proxy.counts == {"Drop": 1}
        (struck,) = proxy.history
        size = len(raw.encode(LIST))
        version = APIS[ApiKey.METADATA].version_max
        assert struck.frame == Frame(0, Direction.REQUEST, 2, ApiKey.METADATA, version, size)
        with RawConnection(proxy.bootstrap_servers) as raw:
            raw.call(LIST)


def test_a_reset_is_a_reset(served: TestBroker) -> None:
    with (
        FaultProxy(served.bootstrap_servers, ScriptedFaults(At(Drop(reset=True)))) as proxy,
        RawConnection(proxy.bootstrap_servers) as raw,
    ):
        raw.send(raw.encode(LIST))
        with pytest.raises(ConnectionResetError):
            raw.socket.recv(1)


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_cut_in_the_middle_of_a_frame(served: TestBroker, direction: Direction, share: float) -> None:
    faults = ScriptedFaults(At(Cut(share), ApiKey.METADATA, direction))
    with FaultProxy(served.bootstrap_servers, faults) as proxy, RawConnection(proxy.bootstrap_servers) as raw:
        raw.send(raw.encode(LIST))
        received = b"".join(iter(lambda: raw.socket.recv(1 << 16), b""))
        size = proxy.history[0].frame.size_bytes if proxy.history[0].frame else 0
        expected = min(int(size * share), size - 1) if direction is Direction.ANSWER else 0
        assert len(received) == expected


def test_silence_lets_requests_through_and_no_answers(served: TestBroker) -> None:
    topic = f"silent-{time.monotonic_ns()}"
    with FaultProxy(served.bootstrap_servers) as proxy:
        with RawConnection(proxy.bootstrap_servers) as raw:
            raw.create_topic(topic)
        proxy.faults = ScriptedFaults(At(Silence(), ApiKey.PRODUCE))
        with RawConnection(proxy.bootstrap_servers, timeout_s=SOON_S) as raw:
            with pytest.raises(TimeoutError):
                raw.produce(topic, 0, _batch())
            with pytest.raises(TimeoutError):
                raw.call(LIST)
            with RawConnection(served.bootstrap_servers) as direct:
                wait_until(partial(_ends_at, direct, topic, 1), 90, "the record to be written")
            proxy.heal()
            with pytest.raises(ClosedError):
                raw.receive()
        with RawConnection(proxy.bootstrap_servers) as raw:
            assert raw.produce(topic, 0, _batch()).base_offset == 1
        proxy.faults = ScriptedFaults(At(Silence(), ApiKey.PRODUCE, Direction.REQUEST))
        with RawConnection(proxy.bootstrap_servers, timeout_s=SOON_S) as raw, pytest.raises(TimeoutError):
            raw.produce(topic, 0, _batch())
        with RawConnection(served.bootstrap_servers) as direct:
            assert direct.offset(topic, 0) == 2


def _ends_at(raw: RawConnection, topic: str, offset: int) -> bool:
    return raw.offset(topic, 0) == offset


def _batch() -> bytes:
    from millstream.core.records import BatchBuilder

    builder = BatchBuilder()
    builder.append(1_790_000_000_000, None, b"value")
    return builder.build()


def test_half_open_and_refused_connections(served: TestBroker) -> None:
    faults = ScriptedFaults(connections={0: Silence(), 1: Drop(), 2: Delay(0.01)})
    with FaultProxy(served.bootstrap_servers, faults) as proxy:
        with RawConnection(proxy.bootstrap_servers, timeout_s=SOON_S) as raw, pytest.raises(TimeoutError):
            raw.call(LIST)
        with RawConnection(proxy.bootstrap_servers) as raw, pytest.raises(ClosedError):
            raw.call(LIST)
        with RawConnection(proxy.bootstrap_servers) as raw:
            raw.call(LIST)
        assert [struck.frame for struck in proxy.history] == [None] * 3


def test_a_delay_holds_up_what_follows(served: TestBroker) -> None:
    with (
        FaultProxy(served.bootstrap_servers, ScriptedFaults(At(Delay(0.3), ApiKey.METADATA))) as proxy,
        RawConnection(proxy.bootstrap_servers) as raw,
    ):
        started = time.monotonic()
        raw.send(raw.encode(LIST) + raw.encode(DescribeClusterRequest()))
        order = [int.from_bytes(raw.receive()[:4], "big") for _ in range(2)]
        assert order == [1, 2]
        assert time.monotonic() - started >= 0.3


def test_a_later_request_of_another_connection_overtakes(served: TestBroker) -> None:
    faults = ScriptedFaults(At(Hold(frames=1, seconds_max=90), ApiKey.METADATA, Direction.REQUEST))
    topic = f"overtaken-{time.monotonic_ns()}"
    with (
        FaultProxy(served.bootstrap_servers, faults) as proxy,
        RawConnection(proxy.bootstrap_servers) as held,
        RawConnection(proxy.bootstrap_servers) as other,
    ):
        held.send(held.encode(MetadataRequest(topics=None)))
        wait_until(lambda: proxy.counts["Hold"], 90, "the request to be held")
        other.create_topic(topic)
        # Asked before the topic was made, answered after something of the other connection.
        held.receive()
        assert proxy.passed >= 3
        proxy.faults = ScriptedFaults(At(Hold(frames=1, seconds_max=90), ApiKey.METADATA, Direction.REQUEST))
        held.send(held.encode(LIST))
        wait_until(lambda: proxy.counts["Hold"] == 2, 90, "the second request to be held")
        proxy.heal()
        held.receive()


def test_what_is_no_request_passes_or_ends_the_connection(served: TestBroker) -> None:
    with FaultProxy(served.bootstrap_servers) as proxy:
        for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"\xff\xff\xff\xff", b"\x00\x00\x00\x02\x00\x00"):
            with RawConnection(proxy.bootstrap_servers) as raw:
                raw.send(nonsense)
                raw.socket.shutdown(socket.SHUT_WR)
                assert raw.socket.recv(1) == b""
        wait_until(lambda: proxy.connections == 0, 90, "the connections to end")


def test_a_broker_that_is_down_is_a_connection_that_ends() -> None:
    with (
        FaultProxy(f"127.0.0.1:{free_ports(1)[0]}") as proxy,
        RawConnection(proxy.bootstrap_servers) as raw,
        pytest.raises(ClosedError),
    ):
        raw.call(LIST)


def test_connections_are_dropped_on_demand(served: TestBroker) -> None:
    with FaultProxy(served.bootstrap_servers) as proxy, RawConnection(proxy.bootstrap_servers) as raw:
        raw.call(LIST)
        proxy.drop_connections()
        with pytest.raises(ClosedError):
            raw.call(LIST)
        wait_until(lambda: proxy.connections == 0, 90, "the connection to end")


def test_nothing_is_left_when_it_stops(served: TestBroker) -> None:
    process = psutil.Process()
    threads, sockets = threading.active_count(), len(process.net_connections("tcp"))
    proxy = FaultProxy(served.bootstrap_servers, ScriptedFaults(At(Delay(600)), connections={1: Silence()}))
    with proxy:
        front = proxy.bootstrap_servers
        opened = [RawConnection(front) for _ in range(5)]
        for number, raw in enumerate(opened):
            if number != 3:
                raw.send(raw.encode(LIST))
        wait_until(lambda: proxy.counts["Delay"] == 1 and proxy.connections == 5, 90, "the connections to hang")
    proxy.stop()
    for raw in opened:
        # The one that was not held up has its answer first.
        while True:
            try:
                if not raw.socket.recv(1 << 16):
                    break
            except ConnectionResetError:
                break
        raw.close()
    with pytest.raises(ConnectionRefusedError):
        RawConnection(front)
    opened.clear()
    gc.collect()
    assert threading.active_count() <= threads
    assert len(process.net_connections("tcp")) <= sockets
    assert not [thread for thread in threading.enumerate() if thread.name == "fault-proxy"]


def test_a_proxy_that_cannot_listen_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError):
        FaultProxy("nowhere")

    async def refuse(*_: object, **__: object) -> None:
        raise OSError("no ports left")

    monkeypatch.setattr("asyncio.start_server", refuse)
    proxy = FaultProxy("127.0.0.1:1")
    with pytest.raises(OSError, match="no ports left"):
        proxy.start()
    proxy.stop()


def test_a_seed_makes_the_same_plan_again() -> None:
    frames = [
        Frame(connection, direction, number, ApiKey.PRODUCE, 11, 100)
        for connection in range(20)
        for direction in Direction
        for number in range(100)
    ]

    def plan(seed: int) -> list[object]:
        faults = RandomFaults(seed, rate=0.2, connection_rate=0.5)
        return [*map(faults.of_connection, range(100)), *map(faults.of_frame, frames)]

    assert plan(1) == plan(1) != plan(2)
    kinds = [type(fault) for fault in plan(1)[100:] if fault is not None]
    assert {Drop, Cut, Delay, Hold, Silence} == set(kinds)
    assert 600 < len(kinds) < 1_000
    assert 30 < sum(fault is not None for fault in plan(1)[:100]) < 70
    assert [NO_FAULTS.of_frame(frame) for frame in frames[:3]] == [None] * 3
    quiet = RandomFaults(1, rate=0, connection_rate=0)
    assert not any(quiet.of_frame(frame) for frame in frames)
