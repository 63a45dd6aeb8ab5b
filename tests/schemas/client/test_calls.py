"""What a client asks, held against steps without a registry."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from millstream.schemas.client.cache import BoundedCache
from millstream.schemas.client.calls import Exchange, RegistryCalls, Steps
from millstream.schemas.client.errors import RegistryError
from millstream.schemas.parsing import Reference, SchemaType, parse


def run(steps: Steps[Any], answer: Callable[[Exchange], Any]) -> tuple[Any, list[str]]:
    """Run `steps` with the answers that `answer` gives; return the result and what was asked."""
    asked = []
    try:
        exchange = next(steps)
        while True:
            asked.append(f"{exchange.method} {exchange.path}")
            exchange = steps.send(answer(exchange))
    except StopIteration as end:
        return end.value, asked


def from_table(table: Mapping[str, Any]) -> Callable[[Exchange], Any]:
    return lambda exchange: table[exchange.path]


def record(name: str, **fields: str) -> str:
    listed = ",".join(f'{{"name":"{field}","type":"{kind}"}}' for field, kind in fields.items())
    return f'{{"type":"record","name":"{name}","fields":[{listed}]}}'


def reference(name: str) -> dict[str, Any]:
    return {"name": name, "subject": f"of-{name}", "version": 1}


def test_what_a_schema_refers_to_is_fetched_once_and_in_an_order_that_can_be_parsed() -> None:
    calls = RegistryCalls(100)
    # A needs B and C, both need D: a diamond.
    table = {
        "schemas/ids/1": {"schema": record("A", b="B", c="C"), "references": [reference("B"), reference("C")]},
        "subjects/of-B/versions/1?deleted=true": {"schema": record("B", d="D"), "references": [reference("D")]},
        "subjects/of-C/versions/1?deleted=true": {"schema": record("C", d="D"), "references": [reference("D")]},
        "subjects/of-D/versions/1?deleted=true": {"schema": record("D", x="int")},
    }
    schema, asked = run(calls.schema(1), from_table(table))
    assert len(asked) == 4
    assert list(schema.resolved) == ["D", "B", "C"]
    assert schema.references == (Reference("B", "of-B", 1), Reference("C", "of-C", 1))
    assert run(calls.schema(1), from_table({})) == (schema, [])
    calls.forget()
    assert len(run(calls.schema(1), from_table(table))[1]) == 4


def test_references_in_a_circle_end() -> None:
    table = {
        "schemas/ids/1": {"schema": record("A", b="B"), "references": [reference("B")]},
        "subjects/of-B/versions/1?deleted=true": {"schema": record("B", c="C"), "references": [reference("C")]},
        "subjects/of-C/versions/1?deleted=true": {"schema": record("C", b="B"), "references": [reference("B")]},
    }
    schema, asked = run(RegistryCalls(100).schema(1), from_table(table))
    assert len(asked) == 3
    assert set(schema.resolved) == {"B", "C"}


def test_endless_references_are_given_up() -> None:
    def answer(exchange: Exchange) -> Any:
        number = int(exchange.path.split("/")[1].removeprefix("of-N")) if exchange.path.startswith("subjects") else 0
        return {"schema": record(f"N{number}", n=f"N{number + 1}"), "references": [reference(f"N{number + 1}")]}

    with pytest.raises(RegistryError, match="refers to over 1000 others"):
        run(RegistryCalls(10).schema(1), answer)


def test_names_are_quoted_and_defaults_left_out() -> None:
    calls = RegistryCalls(10)
    _, asked = run(calls.versions("a/b c?é"), lambda exchange: [1])
    assert asked == ["GET subjects/a%2Fb%20c%3F%C3%A9/versions"]
    _, asked = run(calls.subjects(":.ctx:x", deleted=True), lambda exchange: [])
    assert asked == ["GET subjects?subjectPrefix=%3A.ctx%3Ax&deleted=true"]
    with pytest.raises(ValueError, match="a subject has a name"):
        run(calls.versions(""), lambda exchange: [])


def test_a_schema_is_sent_with_type_and_references() -> None:
    sent: list[Any] = []

    def answer(exchange: Exchange) -> Any:
        sent.append(exchange.body)
        return {"id": 5}

    calls = RegistryCalls(10)
    assert run(calls.register("s", '"string"'), answer)[0] == 5
    schema = parse(SchemaType.JSON, '{"$ref": "x"}', [Reference("x", "s", 2)], {"x": "{}"})
    run(calls.register("s", schema), answer)
    assert sent == [
        {"schema": '"string"'},
        {
            "schema": schema.text,
            "schemaType": "JSON",
            "references": [{"name": "x", "subject": "s", "version": 2}],
        },
    ]


def test_an_id_is_asked_for_once_until_the_subject_is_deleted() -> None:
    calls = RegistryCalls(10)
    answers: dict[str, Any] = {"subjects/s/versions": {"id": 5}, "subjects/s": [1]}
    assert len(run(calls.register("s", '"string"'), from_table(answers))[1]) == 1
    assert run(calls.register("s", '"string"'), from_table(answers))[1] == []
    run(calls.delete_subject("s"), from_table(answers))
    assert len(run(calls.register("s", '"string"'), from_table(answers))[1]) == 1


@pytest.mark.parametrize("answer", [None, [], {"schemas": 1}, "text", 7])
def test_an_answer_that_makes_no_sense_is_named(answer: Any) -> None:
    with pytest.raises(RegistryError, match="in place of an object with 'schema'"):
        run(RegistryCalls(10).schema(1), lambda exchange: answer)


def test_a_cache_is_bounded_whoever_fills_it() -> None:
    cache: BoundedCache[int, int] = BoundedCache(50)

    def fill(start: int) -> None:
        for number in range(start, start + 5_000):
            cache.put(number, number)

    threads = [threading.Thread(target=fill, args=(index * 5_000,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache) == 50
    cache.drop(lambda key: key % 2 == 0)
    assert len(cache) <= 50
    cache.clear()
    assert (len(cache), cache.get(1)) == (0, None)
    assert cache.put(1, 2) == cache.get(1) == 2
