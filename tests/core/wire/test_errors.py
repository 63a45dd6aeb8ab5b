"""The error table against Kafka's, and the exceptions tied to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from millstream.core.wire import ErrorCode, KafkaError, WireError, error_code
from millstream.testing.kafka import Java

LIST_ERRORS = """
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.protocol.Errors;

public class ListErrors {
    public static void main(String[] arguments) {
        for (Errors error : Errors.values())
            System.out.println(
                error.code() + " " + error.name() + " " + (error.exception() instanceof RetriableException));
    }
}
"""


@pytest.mark.java
def test_codes_names_and_which_are_retriable_are_those_of_kafka(jars: Path, tmp_path: Path) -> None:
    source = tmp_path / "ListErrors.java"
    source.write_text(LIST_ERRORS)
    listed = Java(jars).run(str(source)).stdout.splitlines()
    assert len(listed) > 130
    assert [f"{error.value} {error.name} {str(error.retriable).lower()}" for error in ErrorCode] == listed


def test_every_error_has_a_sentence_of_its_own() -> None:
    sentences = [error.sentence for error in ErrorCode]
    assert len(set(sentences)) == len(sentences)
    for sentence in sentences:
        assert sentence[0].isupper() or sentence.startswith(("acks", "delete.topic.enable")), sentence
        assert sentence.endswith("."), sentence


def test_numbers_from_the_wire() -> None:
    assert error_code(3) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert error_code(12345) is ErrorCode.UNKNOWN_SERVER_ERROR
    assert error_code(0) is ErrorCode.NONE


def test_a_kafka_error_says_what_was_wrong() -> None:
    error = KafkaError(ErrorCode.INVALID_PARTITIONS, "Topic 'a' has 3 partitions; ask for more than that.")
    assert error.code is ErrorCode.INVALID_PARTITIONS
    assert str(error) == "INVALID_PARTITIONS: Topic 'a' has 3 partitions; ask for more than that."
    assert KafkaError(ErrorCode.NOT_CONTROLLER).message == ErrorCode.NOT_CONTROLLER.sentence
    assert issubclass(WireError, ValueError)
