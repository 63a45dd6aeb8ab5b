"""No two topics share a directory."""

from __future__ import annotations

import pytest

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


def test_generations_are_named_as_the_rule_says() -> None:
    for generation in (2, 3, 10):
        assert why_no_table(table_name("orders", generation), loaded={"orders"}) is not None
