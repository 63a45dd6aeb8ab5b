"""No two topics share a directory."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.hadoop_loader.commit.names import final_name
from millstream.hadoop_loader.splits import FileKind, StagedFile
from millstream.hadoop_loader.tables.merging import merge
from millstream.hadoop_loader.tables.naming import TableNames, table_name, why_no_table


@pytest.mark.parametrize("named", ["orders.late", "orders.v2", "orders.v12", "orders.v2.late"])
def test_a_topic_named_like_another_ones_table_has_none(named: str) -> None:
    for reason in (
        why_no_table(named, loaded={"orders"}),
        why_no_table(named, loaded=(), coming={"orders", named}),
        why_no_table("orders", loaded={named}),
    ):
        assert reason is not None
        assert named in reason
        assert "another destination" in reason
    assert why_no_table("orders", loaded=(), coming={"orders", named}) is None
    assert why_no_table(named, loaded={named}, coming={"orders", named}) is None
    assert why_no_table(named, loaded={"bills"}, coming={named}) is None


@pytest.mark.parametrize("topic", ["orders.version2", "orders.v", "orders.v02", "late", "v2", "orders-late"])
def test_other_names_are_free(topic: str) -> None:
    assert why_no_table(topic, loaded={"orders"}, coming={"orders", topic}) is None


@pytest.mark.parametrize("topic", [".hidden", "_millstream", "_dead_letters", "_schemas", "__consumer_offsets"])
def test_what_readers_of_tables_do_not_see_is_no_table(topic: str) -> None:
    reason = why_no_table(topic, loaded={topic})
    assert reason is not None
    assert "hidden" in reason


def test_a_topic_whose_files_would_have_names_too_long_has_no_table() -> None:
    def longest(topic: str) -> str:
        partition, offset = 2**31 - 1, 2**63 - 1
        staged = StagedFile(
            "", topic, "", "parquet", topic, "", partition, offset, offset, 1, 1, "", 0, 0, FileKind.DATA
        )
        return final_name(staged, 10**12 - 1)

    room = 255 - len(longest(""))
    assert why_no_table("t" * room, loaded=()) is None
    for loaded in ((), ("t" * (room + 1),)):
        reason = why_no_table("t" * (room + 1), loaded=loaded)
        assert reason is not None
        assert f"{room + 1} characters" in reason
        assert "exclude it" in reason


def test_generations_are_named_as_the_rule_says() -> None:
    for generation in (2, 3, 10):
        assert why_no_table(table_name("orders", generation), loaded={"orders"}) is not None


RULES = {"prod[.](.+)": r"\1", r"(a)-(.*)-(b)": r"\3.\2", "audit": "log", ".*": "rest"}


@pytest.mark.parametrize(
    ("topic", "name"),
    [("prod.orders", "orders"), ("a-x.y-b", "b.x.y"), ("audit", "log"), ("audits", "rest"), ("xprod.orders", "rest")],
)
def test_the_first_rule_that_matches_a_whole_topic_names_its_table(topic: str, name: str) -> None:
    assert TableNames(RULES, {}).of(topic) == name
    assert TableNames({}, {}).of(topic) == topic


def test_a_table_keeps_the_name_that_it_began_with() -> None:
    avro = '{"type": "record", "name": "R", "fields": [{"name": "id", "type": "int"}]}'
    first = merge(None, {1: avro}, topic="prod.orders", name="orders")
    second = merge(first.document, {2: avro.replace('"int"', '"string"')}, topic="prod.orders", name="other")

    assert [one.name for one in second.version.tables()] == ["orders.v2", "orders"]
    assert {one.topic for one in second.version.tables()} == {"prod.orders"}
    assert TableNames({}, {"prod.orders": second.document}).of("prod.orders") == "orders"
    # One that began before there were such rules.
    old = merge(None, {1: avro}, topic="prod.orders").document
    assert "table" not in old
    assert TableNames(RULES, {"prod.orders": old}).of("prod.orders") == "prod.orders"


def test_of_topics_with_one_table_only_one_is_loaded() -> None:
    names = TableNames({"(?:eu|us)[.](.+)": r"\1"}, {})
    coming = ["eu.orders", "us.orders", "us.orders.v2", "us.bills"]

    reasons = {topic: why_no_table(topic, (), coming, names) for topic in coming}

    assert reasons["eu.orders"] is reasons["us.bills"] is None
    assert reasons["us.orders"] is not None
    assert "that of topic eu.orders" in reasons["us.orders"]
    assert reasons["us.orders.v2"] is not None  # it would be where orders' second generation goes
    # Who has it already keeps it, whatever its name is.
    assert why_no_table("us.orders", ("us.orders",), coming, names) is None
    assert why_no_table("eu.orders", ("us.orders",), coming, names) is not None
    # And who has files has it before one that has only been seen.
    kept = TableNames({"(?:eu|us)[.](.+)": r"\1"}, {"us.orders": {"table": "orders"}})
    assert why_no_table("us.orders", ("eu.orders", "us.orders"), (), kept) is None
    assert why_no_table("eu.orders", ("eu.orders", "us.orders"), (), kept) is not None


def test_a_rule_may_not_make_names_that_file_systems_do_not_take() -> None:
    names = TableNames({"(.+)": r"\1-\1"}, {})
    assert why_no_table("t" * 122, (), names=names) is None
    reason = why_no_table("t" * 123, (), names=names)
    assert reason is not None
    assert "247 characters" in reason


@pytest.mark.parametrize("name", ["orders", "orders.late", "orders.v2", "orders.v2.late"])
def test_nobody_gets_a_table_that_a_former_one_is_or_could_be_of(name: str) -> None:
    documents: dict[str, dict[str, Any]] = {
        "o": {"table": "new"},
        "_former/o": {"tables": ["orders", "orders.v3"]},
    }
    reason = why_no_table(name, loaded={"o"}, names=TableNames({}, documents))
    assert reason is not None
    assert "is of a topic that was loaded anew: mend destination.table_names" in reason

    documents = {"o": {"table": "new"}, "_former/o": {"tables": [f"{name}.late"]}}
    assert why_no_table(name, loaded={"o"}, names=TableNames({}, documents)) is not None
    # Who has a table has files there, and goes on.
    documents[name] = {}
    assert why_no_table(name, loaded={"o", name}, names=TableNames({}, documents)) is None
    assert why_no_table("bills", loaded={"o"}, names=TableNames({}, documents)) is None
