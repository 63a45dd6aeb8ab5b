"""What a client asks, held against steps without a registry."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote
from uuid import UUID

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


@pytest.mark.parametrize(
    ("subject", "named", "wanted"),
    [
        (":.c:", "b", ":.c:b"),
        (":.c:a", ":.:b", ":.c:b"),
        (":.c:a", ":.d:b", ":.d:b"),
        (":.:a", "b", "b"),
        ("a", "b", "b"),
        (None, "b", "b"),
    ],
)
def test_what_is_referred_to_lies_in_the_context_of_who_refers(subject: str | None, named: str, wanted: str) -> None:
    def answer(exchange: Exchange) -> Any:
        if exchange.path.startswith(f"subjects/{quote(wanted, safe='')}/"):
            # A reference of its own without a context is in the one it lies in itself.
            return {"schema": record("B", c="C"), "references": [{"name": "C", "subject": "c", "version": 1}]}
        if exchange.path.startswith(f"subjects/{quote(wanted.removesuffix('b') + 'c', safe='')}/"):
            return {"schema": record("C", x="int")}
        assert exchange.path.startswith("schemas/ids/7")
        return {"schema": record("A", b="B"), "references": [{"name": "B", "subject": named, "version": 1}]}

    calls = RegistryCalls(10)
    schema, asked = run(calls.schema(7, subject), answer)
    assert len(asked) == 3
    assert list(schema.resolved) == ["C", "B"]
    # As they were registered: another reference is another schema to the registry.
    assert schema.references == (Reference("B", named, 1),)
    if subject == ":.c:":
        # The default context's are others.
        def default(exchange: Exchange) -> Any:
            if exchange.path.startswith("subjects/b/"):
                return {"schema": record("B", x="int")}
            return {"schema": record("A", b="B"), "references": [{"name": "B", "subject": "b", "version": 1}]}

        assert run(calls.schema(7), default)[0].resolved == {"B": record("B", x="int")}


def test_the_context_is_that_of_the_subject_which_the_answer_names() -> None:
    table = {
        "schemas/ids/7?subject=a": {**_referring(), "subject": ":.c:a", "version": 1},
        "subjects/a/versions/latest": {**_referring(), "subject": ":.d:a", "version": 1, "id": 7},
        "subjects/%3A.c%3Ab/versions/1?deleted=true": {"schema": record("B", x="int")},
        "subjects/%3A.d%3Ab/versions/1?deleted=true": {"schema": record("B", x="long")},
    }
    calls = RegistryCalls(10)
    assert run(calls.schema(7, "a"), from_table(table))[0].resolved == {"B": record("B", x="int")}
    assert run(calls.version("a", "latest"), from_table(table))[0].schema.resolved == {"B": record("B", x="long")}


def test_the_context_of_a_guid_is_asked_for_where_it_matters() -> None:
    guid = UUID(int=1)
    table = {
        f"schemas/guids/{guid}": _referring(),
        f"schemas/guids/{guid}/ids": [{"context": ".c", "id": 7}],
        "subjects/%3A.c%3Ab/versions/1?deleted=true": {"schema": record("B", x="int")},
        f"schemas/guids/{UUID(int=2)}": {"schema": '"int"'},
    }
    calls = RegistryCalls(10)
    assert run(calls.schema_by_guid(guid), from_table(table))[0].resolved == {"B": record("B", x="int")}
    assert len(run(calls.schema_by_guid(UUID(int=2)), from_table(table))[1]) == 1


def _referring() -> dict[str, Any]:
    return {"schema": record("A", b="B"), "references": [{"name": "B", "subject": "b", "version": 1}]}


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


@pytest.mark.parametrize("version", ["..", "1/../../x", "", "first", 1.5, "1?permanent=true", "²"])
def test_what_is_no_version_is_not_asked_for(version: Any) -> None:
    calls = RegistryCalls(10)
    for steps in (
        calls.version("s", version),
        calls.delete_version("s", version),
        calls.referenced_by("s", version),
        calls.compatible("s", '"int"', version),
    ):
        with pytest.raises(ValueError, match="is no version of a subject"):
            run(steps, lambda exchange: pytest.fail(exchange.path))
    with pytest.raises(ValueError):
        run(calls.schema(version), lambda exchange: pytest.fail(exchange.path))


@pytest.mark.parametrize("version", [1, "2", "latest", -1, 0])
def test_versions_are_asked_for_as_they_are_named(version: int | str) -> None:
    answer = {"subject": "s", "version": 3, "id": 4, "schema": '"int"'}
    found, asked = run(RegistryCalls(10).version("s", version), lambda exchange: answer)
    assert (found.version, asked) == (3, [f"GET subjects/s/versions/{version}"])


ODD: list[Any] = [
    None,
    5,
    "x",
    [],
    [5],
    [{}],
    {},
    {"id": "x", "version": None, "schema": '"int"'},
    {"id": True, "schema": '"int"'},
]


@pytest.mark.parametrize("answer", ODD, ids=repr)
@pytest.mark.parametrize(
    "steps",
    [
        lambda calls: calls.versions_of(1),
        lambda calls: calls.listed(),
        lambda calls: calls.versions("s"),
        lambda calls: calls.version("s", 1),
        lambda calls: calls.register("s", '"int"'),
        lambda calls: calls.lookup("s", '"int"'),
        lambda calls: calls.delete_version("s", 1),
        lambda calls: calls.delete_subject("s"),
        lambda calls: calls.compatible("s", '"int"'),
        lambda calls: calls.config(),
        lambda calls: calls.mode(),
        lambda calls: calls.contexts(),
        lambda calls: calls.schema_by_guid("00000000-0000-0000-0000-000000000000"),
    ],
)
def test_an_answer_of_something_else_is_a_registry_error(steps: Callable[[RegistryCalls], Any], answer: Any) -> None:
    """A proxy's page, or another service at that address: nothing that looks like a mistake of ours."""
    with suppress(RegistryError):
        run(steps(RegistryCalls(10)), lambda exchange: answer)
