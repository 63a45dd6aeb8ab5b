"""Both faces of the client over real connections, against a registry that can be told to fail."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.support.fake_registry import Answer, FakeRegistry, Request

from millstream.schemas import AsyncRegistryClient, RegistryClient, RegistryError, RegistryUnavailableError
from millstream.testing.kafka import free_ports

STRING = '"string"'


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        yield registry


class Face:
    """Either client, called alike."""

    def __init__(self, kind: str, *arguments: Any, **settings: Any) -> None:
        self._kind = kind
        self._arguments = arguments
        self._settings = settings

    def call(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        if self._kind == "blocking":
            with RegistryClient(*self._arguments, **self._settings) as client:
                return getattr(client, name)(*arguments, **keywords)

        async def awaited() -> Any:
            async with AsyncRegistryClient(*self._arguments, **self._settings) as client:
                return await getattr(client, name)(*arguments, **keywords)

        return asyncio.run(awaited())


@pytest.fixture(params=["blocking", "asyncio"])
def face(request: pytest.FixtureRequest) -> Any:
    return lambda *arguments, **settings: Face(request.param, *arguments, **settings)


def test_the_faces_have_the_same_calls() -> None:
    def calls(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert calls(RegistryClient) - {"close"} == calls(AsyncRegistryClient) - {"aclose"}


def test_a_schema_goes_in_and_comes_back(fake: FakeRegistry, face: Any) -> None:
    schema_id = face(fake.url).call("register", "s", STRING)
    assert face(fake.url).call("schema", schema_id).text == STRING
    assert face(fake.url).call("latest", "s").version == 1
    sent = fake.requests[0].headers
    assert sent["Content-Type"] == "application/vnd.schemaregistry.v1+json"
    assert "application/vnd.schemaregistry.v1+json" in sent["Accept"]


def test_what_never_changes_is_asked_for_once(fake: FakeRegistry) -> None:
    with RegistryClient(fake.url) as client:
        schema_id = client.register("s", STRING)
        for _ in range(3):
            client.schema(schema_id)
            client.register("s", STRING)
            client.lookup("s", STRING)
            client.schema_by_guid(client.lookup("s", STRING).guid or "")
        assert len(fake.requests) == 4
        client.forget()
        client.schema(schema_id)
        assert len(fake.requests) == 5


def test_the_next_address_is_asked_where_one_is_gone(fake: FakeRegistry, face: Any) -> None:
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    assert face(f"{nobody},{fake.url}").call("subjects") == []
    with RegistryClient([nobody, fake.url]) as client:
        client.subjects()
        fake.requests.clear()
        client.subjects()
        assert len(fake.requests) == 1
    with pytest.raises(RegistryUnavailableError, match=f"no registry answered at {nobody}, asked 2 times"):
        face(nobody, retries=1, backoff_s=0.01).call("subjects")


def test_a_registry_without_a_leader_is_asked_again(fake: FakeRegistry, face: Any) -> None:
    refusals = iter([Answer(500, {"error_code": 50004, "message": "no leader"}), Answer(503, b"busy"), Answer(cut=0)])
    fake.script = lambda request: next(refusals, None)
    assert face(fake.url, backoff_s=0.01).call("register", "s", STRING) == 1
    assert len(fake.requests) == 4


def test_an_answer_that_never_comes_ends_by_the_deadline(fake: FakeRegistry, face: Any) -> None:
    hold = threading.Event()
    fake.script = lambda request: Answer(hold=hold)
    try:
        with pytest.raises(RegistryUnavailableError, match=r"within 0\.5 s"):
            face(fake.url, timeout_s=0.5).call("subjects")
    finally:
        hold.set()


def test_a_delete_is_not_done_twice(fake: FakeRegistry, face: Any) -> None:
    fake.script = lambda request: Answer(body=[1], cut=1)
    with pytest.raises(RegistryUnavailableError, match="is not known: look before asking again"):
        face(fake.url).call("delete_subject", "s")
    assert len(fake.requests) == 1


def test_an_answer_without_end_is_refused(fake: FakeRegistry, face: Any) -> None:
    fake.script = lambda request: Answer(body=b"x" * 100_000)
    with pytest.raises(RegistryError, match="answered over 1,000 bytes"):
        face(fake.url, response_bytes_max=1_000).call("subjects")


def test_who_asks_is_said(fake: FakeRegistry, face: Any) -> None:
    host = fake.url.removeprefix("http://")
    face(fake.url, auth=("user", "pass word")).call("subjects")
    face(f"http://user:pass%20word@{host}").call("subjects")
    face(fake.url, token=lambda: "abc", headers={"X-Tenant": "t"}).call("subjects")
    basic, from_url, bearer = [request.headers for request in fake.requests]
    assert basic["Authorization"] == from_url["Authorization"] == "Basic dXNlcjpwYXNzIHdvcmQ="
    assert (bearer["Authorization"], bearer["X-Tenant"]) == ("Bearer abc", "t")
    fake.script = lambda request: Answer(401, {"error_code": 40101, "message": "Unauthorized"})
    with pytest.raises(RegistryError, match="Unauthorized") as caught:
        face(f"http://user:pass%20word@{host}").call("subjects")
    assert "pass" not in str(caught.value)
    assert "word" not in repr(RegistryClient(f"http://user:pass%20word@{host}").settings)


def test_an_address_may_have_a_path(fake: FakeRegistry, face: Any) -> None:
    fake.script = lambda request: Answer(body=[])
    face(f"{fake.url}/contexts/.staging/").call("subjects")
    assert fake.requests[0].path == "/contexts/.staging/subjects"


@pytest.mark.parametrize(
    ("url", "settings", "complaint"),
    [
        ("", {}, "at least one URL"),
        ("registry:8081", {}, "write http://HOST:PORT"),
        ("http://u:secret@", {}, "is no address"),
        ("alice:secret@registry:8081", {}, "'registry:8081' is no address"),
        ("http://alice:/secret@registry", {}, "'registry' is no address"),
        ("http://alice:sec?secret@registry", {}, "'registry' is no address"),
        ("http://alice:sec#secret@registry", {}, "'registry' is no address"),
        ("http://alice:secret,more@registry", {}, "'registry' is no address"),
        ("http://alice:[secret@registry", {}, "'registry' is no address"),
        (["http://alice:secret/more@registry"], {}, "'registry' is no address"),
        ("http://registry:port", {}, "'http://registry:port' is no address"),
        ("http://registry:70000", {}, "'http://registry:70000' is no address"),
        ("http://a,http://u:p@b", {"auth": ("x", "y")}, "user and password once"),
        ("http://a", {"auth": ("x", "y"), "token": "z"}, "exclude each other"),
        ("http://a", {"timeout_s": 0}, "timeout_s is 0"),
        ("http://a", {"retries": -1}, "retries is -1"),
    ],
)
def test_wrong_settings_are_named(url: str, settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        RegistryClient(url, **settings)
    assert "secret" not in str(caught.value)
    with pytest.raises(TypeError, match="timeout"):
        RegistryClient("http://a", timeout=3)


def test_wrong_certificates_are_named(face: Any) -> None:
    with pytest.raises(ValueError, match="ca_location: "):
        face("https://127.0.0.1:1", ca_location="/no/such.pem").call("subjects")


def test_threads_share_a_client(fake: FakeRegistry) -> None:
    with RegistryClient(fake.url) as client, ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda index: client.register(f"s{index % 10}", STRING), range(200)))
        assert set(ids) == {1}
        texts = set(pool.map(lambda _: client.schema(1).text, range(200)))
        assert texts == {STRING}
    assert 10 <= len(fake.requests) < 200


def test_a_client_goes_on_in_a_forked_process(fake: FakeRegistry) -> None:
    with RegistryClient(fake.url) as client:
        schema_id = client.register("s", STRING)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            # Connections are not shared with the parent; what is remembered is.
            os.write(writer, f"{client.schema(schema_id).text} {client.subjects()}".encode())
            os._exit(0)
        os.close(writer)
        assert os.waitpid(child, 0)[1] == 0
        assert os.read(reader, 100) == b"\"string\" ['s']"
        os.close(reader)
        assert client.subjects() == ["s"]


def _subjects(client: RegistryClient) -> list[str]:
    return client.subjects()


def test_a_client_and_its_errors_travel_between_processes(fake: FakeRegistry) -> None:
    client = RegistryClient(fake.url, retries=7)
    client.register("s", STRING)
    copy = pickle.loads(pickle.dumps(client))
    assert copy.settings == client.settings
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_subjects, (client,)) == ["s"]
    for error in (RegistryError(40401, 404, "no"), RegistryUnavailableError("away")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.code) == (type(error), str(error), error.code)
    client.close()
    copy.close()


async def test_a_client_belongs_to_the_loop_that_runs_it_until_it_is_closed(fake: FakeRegistry) -> None:
    client = AsyncRegistryClient(fake.url)
    many = await asyncio.gather(*(client.register("s", STRING) for _ in range(20)))
    assert set(many) == {1}

    async def elsewhere() -> list[str]:
        try:
            return await client.subjects()
        finally:
            await client.aclose()

    with pytest.raises(RuntimeError, match="make one per loop, or close it there"):
        await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
    assert await client.subjects() == ["s"]
    await client.aclose()
    assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) == ["s"]


def test_the_environment_is_not_asked(fake: FakeRegistry, face: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert face(fake.url).call("subjects") == []


def test_a_request_holds_what_was_asked(fake: FakeRegistry, face: Any) -> None:
    def answered(request: Request) -> Answer:
        if request.path.startswith("/config"):
            return Answer(body={"compatibilityLevel": "FULL", "alias": "b", "unknown": 1})
        return Answer(body={"mode": "READONLY"})

    fake.script = answered
    config = face(fake.url).call("set_config", "a", compatibility_level="FULL", alias="b")
    assert (config.compatibility_level, config.alias, config.normalize) == ("FULL", "b", None)
    assert (fake.requests[0].method, fake.requests[0].path) == ("PUT", "/config/a")
    assert fake.requests[0].body == {"compatibility": "FULL", "alias": "b"}
    assert face(fake.url).call("set_mode", "READONLY", force=True) == "READONLY"
    assert (fake.requests[1].path, fake.requests[1].query) == ("/mode", {"force": "true"})
    assert face(fake.url).call("mode", "a", default_to_global=True) == "READONLY"
    assert fake.requests[2].query == {"defaultToGlobal": "true"}
