"""No two topics share a directory."""

from __future__ import annotations

import pytest

from millstream.hadoop_loader.commit.names import final_name
from millstream.hadoop_loader.splits import FileKind, StagedFile
from millstream.hadoop_loader.tables.naming import table_name, why_no_table


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


@pytest.mark.parametrize("topic", ["_millstream", "_dead_letters", "_schemas", "__consumer_offsets"])
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
