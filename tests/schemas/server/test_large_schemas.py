"""Work that may take long is a thread's, so that nobody else waits for it; on a registry that is filled by hand."""

from __future__ import annotations

import json
import threading

import pytest

from millstream.schemas.parsing import ParsedSchema, Reference
from millstream.schemas.server.catalog import ParseTask, SchemaRequest
from millstream.schemas.server.content import Content
from millstream.schemas.server.records import Key, KeyType, SchemaRecord
from millstream.schemas.server.registry import INLINE_CHARACTERS_MAX, Registry
from millstream.schemas.server.settings import RegistryConfig


class Parsed:
    """Which texts were parsed, and whether that was on the loop's thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.here: list[str] = []
        self.elsewhere: list[str] = []
        run, loop = ParseTask.run, threading.get_ident()

        def watched(task: ParseTask) -> ParsedSchema:
            (self.here if threading.get_ident() == loop else self.elsewhere).append(task.request.text)
            return run(task)

        monkeypatch.setattr(ParseTask, "run", watched)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Parsed:
    return Parsed(monkeypatch)


@pytest.fixture
def registry() -> Registry:
    return Registry(RegistryConfig.load(None, {"kafkastore.bootstrap.servers": "127.0.0.1:1"}))


def hold(registry: Registry, subject: str, *texts: str) -> None:
    for number, text in enumerate(texts, 1):
        record = SchemaRecord(number, Content("AVRO", text), deleted=False)
        registry.state.apply(Key(KeyType.SCHEMA, subject, number), record, number, number)


def record(number: int, fields: int) -> str:
    """Not in canonical form."""
    named = [{"name": f"field_{number}_{one}", "type": "int"} for one in range(fields)]
    return json.dumps({"type": "record", "name": "R", "fields": named}, indent=1)


async def test_the_versions_that_a_new_schema_may_be_are_read_once_and_on_a_thread(
    registry: Registry, parsed: Parsed
) -> None:
    texts = [record(number, 20) for number in range(40)]
    assert sum(map(len, texts)) > INLINE_CHARACTERS_MAX
    hold(registry, "s", *texts)
    new = json.dumps({"type": "fixed", "name": "New", "size": 1})
    assert await registry.find("s", SchemaRequest(text=new), normalize=False) is None
    assert parsed.here == [new]
    assert sorted(parsed.elsewhere) == sorted(texts)
    parsed.elsewhere.clear()
    # In other words than it was stored in.
    found = await registry.find("s", SchemaRequest(text=json.dumps(json.loads(texts[7]), indent=4)), normalize=False)
    assert found is registry.state.find_version("s", 8)
    assert len(parsed.here) == 2
    assert not parsed.elsewhere


async def test_what_a_schema_refers_to_counts_for_its_size(registry: Registry, parsed: Parsed) -> None:
    large = record(1, 1_000)
    assert len(large) > INLINE_CHARACTERS_MAX
    hold(registry, "referred", large)
    request = SchemaRequest(text='{"type":"array","items":"R"}', references=(Reference("R", "referred", 1),))
    assert await registry.find("referring", request, normalize=False) is None
    assert await registry.check("referring", request, [], normalize=False) == []
    assert parsed.here == []
    assert request.text in parsed.elsewhere


async def test_another_form_of_a_large_schema_is_made_on_a_thread(registry: Registry, parsed: Parsed) -> None:
    large = record(1, 1_000)
    hold(registry, "s", large, '"int"')
    version, small = registry.state.versions("s")
    assert '"R"' in await registry.formatted(version, "resolved")
    assert parsed.here == []
    assert parsed.elsewhere == [large]
    assert await registry.formatted(small, "resolved") == '"int"'
