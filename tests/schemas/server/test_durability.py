"""What was acknowledged holds: through kill -9, two leaders at once, a new start, and other registries' records."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from http.client import HTTPException
from itertools import count
from typing import Any

import pytest
from tests.schemas.server.conftest import own_settings
from tests.support.registry import Asker, registry
from tests.support.topic_contents import TopicWriter, read_topics

from millstream.core.client import Client, NewTopic, TopicPartition, create_topics, delete_topics
from millstream.core.records import Record
from millstream.schemas.error_codes import RegistryErrorCode
from millstream.schemas.parsing import Reference
from millstream.schemas.server.app import create_app
from millstream.schemas.server.catalog import SchemaRequest
from millstream.schemas.server.content import Content
from millstream.schemas.server.errors import RegistryRefusal
from millstream.schemas.server.records import Key, KeyType, SchemaRecord, decode_key, encode_value
from millstream.schemas.server.registry import NotLeadingError, Registry
from millstream.schemas.server.settings import RegistryConfig
from millstream.schemas.server.state import Applied
from millstream.schemas.server.store import StoreError, Write
from millstream.testing import TestBroker
from millstream.testing.kafka import ApacheKafka, free_ports, wait_until

DEADLINE_S = 90.0
QUICK = {"leader.election.session.timeout.ms": "6000", "leader.election.heartbeat.interval.ms": "500"}


def topic_of(settings: dict[str, str]) -> TopicPartition:
    return TopicPartition(settings["kafkastore.topic"], 0)


async def records_of(bootstrap: str, settings: dict[str, str]) -> list[Record]:
    async with Client(bootstrap) as client:
        return (await read_topics(client, [topic_of(settings)]))[topic_of(settings)]


async def write_records(bootstrap: str, settings: dict[str, str], *records: tuple[bytes, bytes | None]) -> None:
    async with Client(bootstrap) as client, TopicWriter(client) as writer:
        for key, value in records:
            writer.append(topic_of(settings), key, value)


def everything(asker: Asker) -> dict[str, Any]:
    """All that a registry has, deleted or not, but for its times."""
    listed = asker.get("/schemas", subjectPrefix=":*:", deleted=True).body
    return {
        "schemas": [{name: value for name, value in one.items() if name != "ts"} for one in listed],
        "subjects": asker.get("/subjects", deleted=True).body,
        "contexts": asker.get("/contexts").body,
        "config": asker.get("/config").body,
        "mode": asker.get("/mode").body,
    }


class Writers:
    """Threads that register schemas, and remember which ids were acknowledged for which text."""

    def __init__(self, urls: list[str], count_of_threads: int = 3) -> None:
        self.acknowledged: list[tuple[str, int, str]] = []
        self.refused: list[Any] = []
        self._askers = [Asker(url) for url in urls]
        self._stopping = threading.Event()
        self._numbers = count()
        self._threads = [threading.Thread(target=self._write, args=(one,)) for one in range(count_of_threads)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _write(self, thread: int) -> None:
        while not self._stopping.is_set():
            number = next(self._numbers)
            text = json.dumps({"type": "fixed", "name": f"F{number}", "size": 4})
            subject = f"written-{thread}-{number}"
            try:
                answered = self._askers[number % len(self._askers)].register(subject, text)
            except (OSError, HTTPException):
                continue  # it is being killed, perhaps in the middle of an answer
            if answered.status == 200:
                self.acknowledged.append((subject, answered.body["id"], json.loads(text)["name"]))
            else:
                self.refused.append(answered)

    def wait_for_more(self, by: int) -> None:
        """Wait until so many more were acknowledged."""
        target = len(self.acknowledged) + by
        wait_until(lambda: len(self.acknowledged) >= target, DEADLINE_S, f"{by} more acknowledged schemas")

    def check(self, asker: Asker) -> None:
        """Every acknowledged id stands for the schema it was given for, and no two schemas have one."""
        ids = [schema_id for _, schema_id, _ in self.acknowledged]
        assert len(set(ids)) == len(ids)
        for subject, schema_id, name in self.acknowledged:
            assert json.loads(asker.get(f"/schemas/ids/{schema_id}").body["schema"])["name"] == name
            assert asker.get(f"/subjects/{subject}/versions/latest").body["id"] == schema_id


@pytest.mark.parametrize("rounds", [3])
def test_kill_during_writes_loses_no_acknowledged_schema(
    millstream_broker_session: TestBroker, rounds: int, soak: bool
) -> None:
    settings = own_settings() | QUICK
    bootstrap = millstream_broker_session.bootstrap_servers
    (port,) = free_ports(1)
    with ExitStack() as stack:
        running = stack.enter_context(registry(bootstrap, settings, listen=f"127.0.0.1:{port}"))
        with Writers([running.url]) as writers:
            for _ in range(rounds * (10 if soak else 1)):
                writers.wait_for_more(15)
                running.kill()
                running = stack.enter_context(registry(bootstrap, settings, listen=f"127.0.0.1:{port}"))
            writers.wait_for_more(15)
        writers.check(Asker(running.url))
        before = everything(Asker(running.url))
        running.stop()
        again = stack.enter_context(registry(bootstrap, settings))
        assert everything(Asker(again.url)) == before


@contextmanager
def group(bootstrap: str, settings: dict[str, str], members: int) -> Iterator[list[Any]]:
    """Several instances of one registry."""
    with ExitStack() as stack:
        yield [stack.enter_context(registry(bootstrap, settings | QUICK)) for _ in range(members)]


def leader_of(askers: list[Asker]) -> str:
    """The URL that all instances agree leads."""

    def agreed() -> str | None:
        said = set()
        for one in askers:
            try:
                said.add(one.get("/healthz").body["leader"])
            except OSError:
                continue
        (url,) = said if len(said) == 1 else (None,)
        return url

    return wait_until(agreed, DEADLINE_S, "one leader that all know")


def test_followers_forward_and_another_leads_when_the_leader_dies(millstream_broker_session: TestBroker) -> None:
    with group(millstream_broker_session.bootstrap_servers, own_settings(), 3) as instances:
        askers = [Asker(one.url) for one in instances]
        first = leader_of(askers)
        # Whichever is asked, what it answers can be found there at once.
        for number, asker in enumerate(askers):
            registered = asker.register(f"s{number}", json.dumps({"type": "fixed", "name": "F", "size": number + 1}))
            assert registered.body["id"] == number + 1, registered
            assert asker.get(f"/schemas/ids/{number + 1}").status == 200
        follower = next(one for one in askers if one.url != first)
        # Whoever forwards says what was meant: a path with dots is not made shorter, an alias is followed once.
        assert follower.ask("DELETE", "/subjects/s2/versions/%2E%2E").error_code == 42202
        assert follower.get("/subjects/s2/versions").body == [1]
        assert follower.ask("PUT", "/config/%2E", {"compatibility": "NONE"}).status == 200
        assert follower.get("/config/%2E").body == {"compatibilityLevel": "NONE"}
        assert follower.get("/config").body == {"compatibilityLevel": "BACKWARD"}
        for subject, alias in (("one", "two"), ("two", "three")):
            assert follower.ask("PUT", f"/config/{subject}", {"alias": alias}).status == 200
        follower.register("one", '{"type":"fixed","name":"F","size":1}')
        assert follower.get("/subjects", subjectPrefix="t").body == ["two"]
        assert follower.ask("PUT", "/config/s0", {"compatibility": "NONE"}).body == {"compatibility": "NONE"}
        assert follower.ask("DELETE", "/subjects/s2").body == [1]
        # Refusals come through as they are; a request that was forwarded once is not forwarded again.
        assert follower.register("s0", "{").error_code == 42201
        assert Asker(follower.url, {"X-Forward": "true"}).register("s9", '"int"').error_code == 50004

        with Writers([one.url for one in askers if one.url != first]) as writers:
            writers.wait_for_more(10)
            next(one for one in instances if one.url == first).kill()
            writers.wait_for_more(10)
        left = [one for one in askers if one.url != first]
        assert leader_of(left) != first
        for asker in left:
            writers.check(asker)


def test_a_leader_that_was_asleep_changes_nothing(millstream_broker_session: TestBroker) -> None:
    """SIGSTOP for longer than the session: it wakes as a leader, with requests that waited, and another one leads."""
    with group(millstream_broker_session.bootstrap_servers, own_settings(), 3) as instances:
        askers = [Asker(one.url) for one in instances]
        with Writers([one.url for one in askers]) as writers:
            writers.wait_for_more(10)
            first = leader_of(askers)
            asleep = next(one for one in instances if one.url == first)
            os.kill(asleep.pid, signal.SIGSTOP)
            try:
                awake = [one for one in askers if one.url != first]
                wait_until(lambda: leader_of(awake) != first, DEADLINE_S, "another to lead")
                with Writers([one.url for one in awake]) as others:
                    others.wait_for_more(10)
            finally:
                os.kill(asleep.pid, signal.SIGCONT)
            writers.wait_for_more(30)
        leader_of(askers)
        # All of them hold the same, and what each acknowledged.
        wait_until(lambda: len({json.dumps(everything(one)) for one in askers}) == 1, DEADLINE_S, "all to be one")
        for asker in askers:
            writers.check(asker)
            others.check(asker)


def test_a_leader_that_leaves_in_order_is_followed_at_once(millstream_broker_session: TestBroker) -> None:
    with group(millstream_broker_session.bootstrap_servers, own_settings(), 2) as instances:
        askers = [Asker(one.url) for one in instances]
        first = leader_of(askers)
        leaving = next(one for one in instances if one.url == first)
        assert leaving.stop() == 0
        (left,) = [one for one in askers if one.url != first]
        registered = wait_until(lambda: left.register("s", '"int"').body.get("id"), DEADLINE_S, "the other to lead")
        assert registered == 1


def config_of(bootstrap: str, settings: dict[str, str]) -> RegistryConfig:
    given = {"kafkastore.bootstrap.servers": bootstrap, "listeners": "http://127.0.0.1:0"} | settings
    return RegistryConfig.load(None, given | {"kafkastore.topic.replication.factor": "1"})


@asynccontextmanager
async def instance(bootstrap: str, settings: dict[str, str], port: int) -> AsyncIterator[Registry]:
    """An instance without its HTTP side, in this process."""
    running = Registry(config_of(bootstrap, settings))
    await running.start(port)
    try:
        yield running
    finally:
        await running.close()


async def register(running: Registry, subject: str, text: str) -> int:
    async with running.leading():
        return (await running.register(subject, SchemaRequest(text=text), normalize=False)).id


async def test_of_two_that_believe_to_lead_the_log_knows_the_right_one(millstream_broker_session: TestBroker) -> None:
    """In two groups, so that each elects its own: as after a partition of the network, the group's word unheard."""
    bootstrap = millstream_broker_session.bootstrap_servers
    settings = own_settings()
    other = settings | {"schema.registry.group.id": settings["schema.registry.group.id"] + "-other"}
    async with instance(bootstrap, settings, 1) as former:
        assert await register(former, "a", '"int"') == 1
        async with instance(bootstrap, other, 2) as present:
            assert await register(present, "b", '"long"') == 2
            # The former leader has read what the present one wrote, or not: what it decides counts for nothing.
            with pytest.raises(RegistryRefusal) as refused:
                await register(former, "c", '"string"')
            assert refused.value.code is RegistryErrorCode.STORE_ERROR
            assert not former.is_leading
            assert await register(present, "c", '"double"') == 3
            found = present.state.find_version("c", 1)
            assert found is not None
            assert found.content.text == '"double"'
            assert not present.state.damaged
        # It is elected anew by its own group, begins a term, and goes on from what there is.
        assert await register(former, "d", '"bytes"') == 4
        read = [(key, one.value) for one in await records_of(bootstrap, settings) if (key := decode_key(one.key))]
    # A registry that knows nothing of terms comes to the same after compaction: of each key the last record is right.
    last = {key: json.loads(value) for key, value in read if key.type is KeyType.SCHEMA and value is not None}
    assert {key.subject: (one["id"], one["schema"]) for key, one in last.items()} == {
        "a": (1, '"int"'),
        "b": (2, '"long"'),
        "c": (3, '"double"'),
        "d": (4, '"bytes"'),
    }


async def test_two_instances_of_one_url_say_so(
    millstream_broker_session: TestBroker, caplog: pytest.LogCaptureFixture
) -> None:
    bootstrap, settings = millstream_broker_session.bootstrap_servers, own_settings()
    async with instance(bootstrap, settings, 7) as first:
        assert await register(first, "a", '"int"') == 1
        async with instance(bootstrap, settings, 7), asyncio.timeout(DEADLINE_S):
            while "another registry of this group has the URL http://127.0.0.1:7 as well" not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        # Alone again, it leads again.
        async with asyncio.timeout(DEADLINE_S):
            while not first.is_leading:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert await register(first, "b", '"long"') == 2


async def test_what_a_failed_write_leaves_behind_is_not_taken_for_a_later_one(
    millstream_broker_session: TestBroker,
) -> None:
    """It may be appended after what was acknowledged since, as it is still on its way to the broker."""
    bootstrap, settings = millstream_broker_session.bootstrap_servers, own_settings()
    async with instance(bootstrap, settings, 1) as running:
        assert await register(running, "first", '"bytes"') == 1
        write = running.store.write
        late: list[Write] = []

        async def fails(writes: Sequence[Write]) -> list[tuple[int, Applied]]:
            late.extend(writes)
            raise RegistryRefusal(RegistryErrorCode.OPERATION_TIMEOUT, "timed out; it may have been done")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(running.store, "write", fails)
            with pytest.raises(RegistryRefusal):
                await register(running, "a", '"int"')
        assert await register(running, "a", '"long"') == 2
        assert [applied for _, applied in await write(late)] == [Applied.FENCED]
        found = running.state.find_version("a", 1)
        assert found is not None
        assert found.content.text == '"long"'


async def test_what_was_decided_before_the_lead_was_lost_is_not_written_after(
    millstream_broker_session: TestBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost and had again while a schema was compared: another leader may have registered one meanwhile."""
    bootstrap, settings = millstream_broker_session.bootstrap_servers, own_settings()
    async with instance(bootstrap, settings, 1) as running:
        compare = running._compare

        async def interrupted(*given: Any, **options: Any) -> list[str]:
            assert running.election is not None
            running.election.doubt("for a test")
            assert await running.election.known_leader(DEADLINE_S) is not None
            return await compare(*given, **options)

        monkeypatch.setattr(running, "_compare", interrupted)
        with pytest.raises(NotLeadingError):
            await register(running, "a", '"int"')
        assert running.is_leading
        assert running.state.find_version("a", 1) is None
        monkeypatch.undo()
        assert await register(running, "a", '"int"') == 1


async def test_a_schema_comes_back_before_its_former_version_goes(millstream_broker_session: TestBroker) -> None:
    """So that its id stands for it at every moment, wherever the leader is stopped."""
    bootstrap, settings = millstream_broker_session.bootstrap_servers, own_settings()
    async with instance(bootstrap, settings, 1) as running:
        assert await register(running, "a", '"int"') == 1
        async with running.leading():
            await running.delete_version("a", 1, permanent=False)
        assert await register(running, "a", '"int"') == 1
        assert [one.version for one in running.state.versions("a")] == [2]
        assert running.state.find_id(".", 1) is running.state.find_version("a", 2)
    keys = [(decode_key(one.key), one.value) for one in await records_of(bootstrap, settings)]
    of_schemas = [(key.version, value is None) for key, value in keys if key.type is KeyType.SCHEMA]
    assert of_schemas == [(1, False), (1, False), (2, False), (1, True)]


async def test_a_follower_that_lags_asks_the_leader(
    millstream_broker_session: TestBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a new schema refers to may have been registered at the leader a moment ago."""
    bootstrap, settings = millstream_broker_session.bootstrap_servers, own_settings() | QUICK
    with registry(bootstrap, settings) as leading:
        asker = Asker(leading.url)
        record = json.dumps({"type": "record", "name": "R", "fields": []})
        assert asker.register("referred", record).status == 200
        async with instance(bootstrap, settings | {"leader.eligibility": "false"}, 1) as following:
            app = create_app(following)
            # As long as it has not read what the leader wrote.
            monkeypatch.setattr(following.state, "find_version", lambda subject, number: None)
            body = {"schema": '"R"', "references": [{"name": "R", "subject": "referred", "version": 1}]}
            sent: list[Any] = []

            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": json.dumps(body).encode()}

            async def send(message: Any) -> None:
                sent.append(message)

            path = "/subjects/referring/versions"
            scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
            await app({**scope, "headers": [(b"content-type", b"application/json")]}, receive, send)
            assert sent[0]["status"] == 200, sent
            await app.close()


def test_records_that_nobody_here_knows_stay_and_are_passed_over(millstream_broker_session: TestBroker) -> None:
    settings = own_settings()
    bootstrap = millstream_broker_session.bootstrap_servers
    strange: list[tuple[bytes, bytes | None]] = [
        (b'{"keytype":"ASSOC","tenant":"default","resourceName":"r","subject":"s"}', b'{"frozen":true}'),
        (b'{"keytype":"FUTURE","magic":7}', b'{"a":[1,2,3]}'),
        (b"no json at all", b"\x00\x01"),
        (b'{"keytype":"SCHEMA","subject":"s","version":1,"magic":9}', b"{}"),
        (b'{"keytype":"CONFIG","subject":"s","magic":0}', b"not json"),
        (b'{"keytype":"FUTURE","magic":8}', None),
        (
            b'{"keytype":"SCHEMA","subject":"damaged","version":1,"magic":1}',
            b'{"id":9,"schema":"\\"int\\"","references":[{"name":"a","subject":"b","version":1099511627776}]}',
        ),
        (
            b'{"keytype":"SCHEMA","subject":"damaged","version":2,"magic":1}',
            b'{"id":9,"schema":"\\"int\\"","metadata":{"tags":[5]}}',
        ),
        (b'{"keytype":"SCHEMA","subject":"\\ud800","version":1,"magic":1}', b'{"id":9,"schema":"x"}'),
        (b'{"keytype":"CONFIG","subject":"after","magic":0}', b'{"compatibilityLevel":"NEWER","alias":null}'),
    ]
    with registry(bootstrap, settings) as running:
        assert Asker(running.url).register("before", '"int"').body["id"] == 1
        asyncio.run(write_records(bootstrap, settings, *strange))
        assert Asker(running.url).register("after", '"long"').body["id"] == 2
        before = everything(Asker(running.url))
        running.stop()
    with registry(bootstrap, settings) as running:
        asker = Asker(running.url)
        assert everything(asker) == before
        assert asker.register("later", '"string"').body["id"] == 3
        assert "millstream_registry_records_passed_over" in asker.get("/metrics").body
    kept = {(one.key, one.value) for one in asyncio.run(records_of(bootstrap, settings))}
    assert set(strange) <= kept


# A topic as Confluent's registry leaves it: several versions of it wrote these.
CONFLUENT_RECORDS: list[tuple[bytes, bytes | None]] = [
    (b'{"keytype":"NOOP","magic":0}', None),
    (b'{"keytype":"CONFIG","subject":null,"magic":0}', b'{"compatibilityLevel":"FULL"}'),
    (
        b'{"keytype":"SCHEMA","subject":"flights-value","version":1,"magic":1}',
        (
            b'{"subject":"flights-value","version":1,"id":1,"schema":"{\\"type\\":\\"record\\",\\"name\\":\\"F\\",'
            b'\\"fields\\":[{\\"name\\":\\"a\\",\\"type\\":\\"int\\"}]}","deleted":false}'
        ),
    ),
    (
        b'{"keytype":"SCHEMA","subject":"order","version":1,"magic":1}',
        (
            b'{"subject":"order","version":1,"id":2,"md5":"Ksg3bVbWQcM2AxSwNTJWXQ==","schemaType":"PROTOBUF",'
            b'"schema":"syntax = \\"proto3\\";\\n\\nmessage Order {\\n  string id = 1;\\n}\\n","deleted":false}'
        ),
    ),
    (
        b'{"keytype":"SCHEMA","subject":"using","version":1,"magic":1}',
        (
            b'{"subject":"using","version":1,"id":3,"references":[{"name":"F","subject":"flights-value","version":1}],'
            b'"schema":"{\\"type\\":\\"array\\",\\"items\\":\\"F\\"}","deleted":false,"offset":4,"ts":1700000000000}'
        ),
    ),
    (
        b'{"keytype":"SCHEMA","subject":"gone","version":1,"magic":1}',
        b'{"subject":"gone","version":1,"id":4,"schema":"\\"string\\"","deleted":false}',
    ),
    (b'{"keytype":"DELETE_SUBJECT","subject":"gone","magic":0}', b'{"subject":"gone","version":1}'),
    (
        b'{"keytype":"CONTEXT","tenant":"default","context":".eu","magic":0}',
        b'{"tenant":"default","context":".eu"}',
    ),
    (
        b'{"keytype":"SCHEMA","subject":":.eu:flights","version":1,"magic":1}',
        b'{"subject":":.eu:flights","version":1,"id":1,"schemaType":"AVRO","schema":"\\"int\\"","deleted":false}',
    ),
    (b'{"keytype":"MODE","subject":"order","magic":0}', b'{"subject":"order","mode":"READONLY"}'),
    (
        b'{"keytype":"CONFIG","subject":"using","magic":0}',
        b'{"subject":"using","alias":"flights-value","compatibilityLevel":"NONE","validateRules":true}',
    ),
    (b'{"keytype":"CLEAR_SUBJECT","subject":"nobody","magic":0}', b'{"subject":"nobody"}'),
]


def check_taken_over(asker: Asker) -> None:
    assert asker.get("/subjects").body == [":.eu:flights", "flights-value", "order", "using"]
    assert asker.get("/subjects", deletedOnly=True).body == ["gone"]
    assert asker.get("/config").body == {"compatibilityLevel": "FULL"}
    assert asker.get("/mode/order").body == {"mode": "READONLY"}
    assert asker.get("/config/using").body == {
        "alias": "flights-value",
        "compatibilityLevel": "NONE",
        "validateRules": True,
    }
    assert asker.get("/contexts").body == [".", ".eu"]
    assert asker.get("/schemas/ids/2").body["schemaType"] == "PROTOBUF"
    assert asker.get("/subjects/flights-value/versions/1/referencedby").body == [3]
    assert asker.get("/schemas/ids/1", subject=":.eu:").body["schema"] == '"int"'
    # What is registered there is found, though in other words; what is new goes on from there.
    spaced = '{"type": "record", "name": "F", "fields": [{"name": "a", "type": "int"}]}'
    assert asker.register("flights-value", spaced).body["id"] == 1
    assert asker.register("order", 'syntax = "proto3"; message X {}', schemaType="PROTOBUF").error_code == 42205
    assert asker.register("new", '"bytes"').body["id"] == 5


async def check_written_back(bootstrap: str, settings: dict[str, str]) -> None:
    """What Confluent's registry reads afterwards: every key in its order of fields, every value in its form."""
    written = (await records_of(bootstrap, settings))[len(CONFLUENT_RECORDS) :]
    assert written
    for record in written:
        key = decode_key(record.key)
        assert key.encoded() == record.key
        if key.type is KeyType.SCHEMA:
            assert json.loads(record.value or b"") == {
                "subject": "new",
                "version": 1,
                "id": 5,
                "schemaType": "AVRO",
                "schema": '"bytes"',
                "deleted": False,
            }


async def make_confluent_topic(bootstrap: str, settings: dict[str, str]) -> None:
    async with Client(bootstrap) as client:
        await create_topics(client, [NewTopic(topic_of(settings).topic, 1, 1, {"cleanup.policy": "compact"})])
    await write_records(bootstrap, settings, *CONFLUENT_RECORDS)


def test_a_topic_of_confluents_is_taken_over(millstream_broker_session: TestBroker) -> None:
    bootstrap, settings = millstream_broker_session.bootstrap_servers, own_settings()
    asyncio.run(make_confluent_topic(bootstrap, settings))
    with registry(bootstrap, settings) as running:
        check_taken_over(Asker(running.url))
    asyncio.run(check_written_back(bootstrap, settings))


@pytest.mark.java
def test_it_works_on_apache_kafka_as_well(apache_kafka: ApacheKafka) -> None:
    bootstrap, settings = apache_kafka.bootstrap_servers, own_settings() | QUICK
    asyncio.run(make_confluent_topic(bootstrap, settings))
    (port,) = free_ports(1)
    with ExitStack() as stack:
        running = stack.enter_context(registry(bootstrap, settings, listen=f"127.0.0.1:{port}"))
        check_taken_over(Asker(running.url))
        with Writers([running.url]) as writers:
            writers.wait_for_more(10)
            running.kill()
            running = stack.enter_context(registry(bootstrap, settings, listen=f"127.0.0.1:{port}"))
            writers.wait_for_more(10)
        writers.check(Asker(running.url))
        second = stack.enter_context(registry(bootstrap, settings))
        leader = leader_of([Asker(running.url), Asker(second.url)])
        follower = next(one for one in (running, second) if one.url != leader)
        assert Asker(follower.url).register("by-a-follower", '"double"').status == 200


async def test_a_topic_with_the_wrong_policy_is_refused(millstream_broker_session: TestBroker) -> None:
    bootstrap, settings = millstream_broker_session.bootstrap_servers, own_settings()
    wide = own_settings()
    async with Client(bootstrap) as client:
        await create_topics(client, [NewTopic(topic_of(settings).topic, 1, 1), NewTopic(topic_of(wide).topic, 2, 1)])
    for given, sentence in ((settings, "compact"), (wide, "2 partitions")):
        running = Registry(config_of(bootstrap, given))
        with pytest.raises(StoreError, match=sentence):
            await running.start(1)
        await running.close()


async def test_a_record_that_breaks_a_promise_is_put_right_by_the_leader(millstream_broker_session: TestBroker) -> None:
    """Another registry gives an id away twice; whoever leads writes the key again as it should be, unasked."""
    bootstrap, settings = millstream_broker_session.bootstrap_servers, own_settings()
    async with instance(bootstrap, settings, 1) as running:
        assert await register(running, "a", '"int"') == 1
        key = Key(KeyType.SCHEMA, "a", 1)
        bad = SchemaRecord(1, Content("AVRO", '"long"', (Reference("x", "y", 1),)), deleted=False)
        for times in (1, 2):
            await write_records(bootstrap, settings, (key.encoded(), encode_value(key, bad)))
            async with asyncio.timeout(DEADLINE_S):
                while running.state.passed_over[Applied.DUPLICATE_ID] < times or running.state.damaged:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert await register(running, "b", '"string"') == 2
        found = running.state.find_version("a", 1)
        assert found is not None
        assert found.content.text == '"int"'
    last = [one for one in await records_of(bootstrap, settings) if one.key == key.encoded()][-1]
    assert json.loads(last.value or b"")["schema"] == '"int"'


async def test_what_is_damaged_is_repaired_before_anything_else_is_written(
    millstream_broker_session: TestBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    bootstrap, settings = millstream_broker_session.bootstrap_servers, own_settings()
    async with instance(bootstrap, settings, 1) as running:
        assert await register(running, "a", '"int"') == 1
        monkeypatch.setattr(running.store, "on_damaged", lambda: None)
        key = Key(KeyType.SCHEMA, "a", 1)
        bad = SchemaRecord(1, Content("AVRO", '"long"'), deleted=False)
        await write_records(bootstrap, settings, (key.encoded(), encode_value(key, bad)))
        async with asyncio.timeout(DEADLINE_S):
            while not running.state.damaged:  # noqa: ASYNC110  the reader decides when
                await asyncio.sleep(0.01)
        assert await register(running, "b", '"string"') == 2
        assert not running.state.damaged
    keys = [one.key for one in await records_of(bootstrap, settings)]
    assert keys[-2:] == [key.encoded(), Key(KeyType.SCHEMA, "b", 1).encoded()]


async def test_a_topic_that_is_made_anew_is_read_anew(millstream_broker_session: TestBroker) -> None:
    """Somebody deletes the topic: what it held is gone, and nobody goes on as if it were not."""
    bootstrap, settings = millstream_broker_session.bootstrap_servers, own_settings()
    topic = topic_of(settings).topic
    async with instance(bootstrap, settings, 1) as running, Client(bootstrap) as client:
        for number in range(3):
            await register(running, f"s{number}", json.dumps({"type": "fixed", "name": "F", "size": number + 1}))
        # What became of records is forgotten with them: others will lie at their offsets.
        bad = encode_value(Key(KeyType.SCHEMA, "bad", 1), SchemaRecord(1, Content("AVRO", '"long"'), deleted=False))
        await write_records(bootstrap, settings, (Key(KeyType.SCHEMA, "bad", 1).encoded(), bad))
        await register(running, "last", '"string"')
        assert running.state.passed_over[Applied.DUPLICATE_ID] == 1
        await delete_topics(client, [topic])
        await create_topics(client, [NewTopic(topic, 1, 1, {"cleanup.policy": "compact"})])
        async with asyncio.timeout(DEADLINE_S):
            while list(running.state.subjects()) or not running.is_leading:  # noqa: ASYNC110  the broker decides when
                await asyncio.sleep(0.05)
        assert await register(running, "new", '"int"') == 1
        assert {one.version for one in running.state.versions("new")} == {1}
        for number in range(8):
            await register(running, f"n{number}", json.dumps({"type": "fixed", "name": "F", "size": number + 1}))
