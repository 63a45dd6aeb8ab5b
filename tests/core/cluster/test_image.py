"""ClusterImage: a change makes a new image, the old one stays as it was, and what did not change is shared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.metadata_store_kit import STORY, topic

from millstream.core.cluster import AdvanceProducerIds, ClusterImage, CreateTopic, DeleteTopic, Operation
from millstream.core.cluster.codec import operations_from_text, operations_text


def test_an_image_never_changes() -> None:
    images, shown = [ClusterImage()], []
    for version, operations in enumerate(STORY, 1):
        shown.append(repr(images[-1]))
        images.append(images[-1].apply(version, operations))
    assert [repr(image) for image in images[:-1]] == shown
    assert images[4].topics is not images[3].topics
    assert images[-2].broker_configs is images[-1].broker_configs


def test_operations_survive_their_text() -> None:
    for operations in STORY:
        assert operations_from_text(operations_text(operations)) == tuple(operations)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["a", "b.c", "b_d", "e-f", "g"])), max_size=30))
def test_lookups_agree_with_a_scan(steps: list[tuple[bool, str]]) -> None:
    image = ClusterImage()
    for version, (create, name) in enumerate(steps, 1):
        operations: list[Operation] = []
        if create and name not in image.topics:
            operations = [CreateTopic(topic(name))]
        elif not create and name in image.topics:
            operations = [DeleteTopic(topic(name).topic_id)]
        image = image.apply(version, operations)

        for candidate in ["a", "b.c", "b_c", "b.d", "b_d", "e-f", "g", "x"]:
            same = [other for other in image.topics if other.replace(".", "_") == candidate.replace(".", "_")]
            assert image.topic_like(candidate) == (same[0] if same else None)
            by_id = [found for found in image.topics.values() if found.topic_id == topic(candidate).topic_id]
            assert image.topic_by_id(topic(candidate).topic_id) == (by_id[0] if by_id else None)


def test_producer_ids_never_go_back() -> None:
    image = ClusterImage().apply(1, [AdvanceProducerIds(2000)])
    with pytest.raises(AssertionError, match="go back from 2000 to 1000"):
        image.apply(2, [AdvanceProducerIds(1000)])


def test_the_dynamic_configs_of_a_broker_and_of_all() -> None:
    image = ClusterImage().apply(1, STORY[5])
    assert image.dynamic_configs(1) == ({"max.connections": "9"}, {"log.retention.ms": "1"})
    assert image.dynamic_configs(2) == ({}, {"log.retention.ms": "1"})


def test_two_adopted_topics_of_one_metric_name_can_both_be_deleted() -> None:
    both = ClusterImage.of([topic("a.b"), topic("a_b"), topic("c")])
    for first, second in (("a.b", "a_b"), ("a_b", "a.b")):
        image = both.apply(1, [DeleteTopic(both.topics[first].topic_id)])
        assert image.topic_like("a.b") == second
        image = image.apply(2, [DeleteTopic(both.topics[second].topic_id)])
        assert (image.topic_like("a.b"), image.topic_like("c"), list(image.topics)) == (None, "c", ["c"])
