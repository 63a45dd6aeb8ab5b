"""What is answered when a whole request fails: its response with the error in every place that has room for one.

Most responses carry errors per item only (per topic, partition, resource). So that a client is told, and not just cut
off, each item of the request gets its item in the response, with what identifies it and the error; Apache Kafka's
`AbstractRequest.getErrorResponse` does the same. Where nothing was asked for by item, or the version has no place for
the error, there is no such answer, and the connection is closed instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from millstream.core.wire import APIS, ApiKey, ErrorCode

# The arrays of a request that hold its items (one of them, by its version), and the one that answers them, from the
# outside in.
_Path = Sequence[tuple[Sequence[str], str]]
_TOPICS_AND_PARTITIONS: Final[_Path] = ((("topics",), "topics"), (("partitions",), "partitions"))
_RESOURCES: Final[_Path] = ((("resources",), "responses"),)
_ITEMS: Final[Mapping[ApiKey, _Path]] = {
    ApiKey.PRODUCE: ((("topic_data",), "responses"), (("partition_data",), "partition_responses")),
    ApiKey.LIST_OFFSETS: _TOPICS_AND_PARTITIONS,
    ApiKey.METADATA: ((("topics",), "topics"),),
    ApiKey.FIND_COORDINATOR: ((("coordinator_keys",), "coordinators"),),
    ApiKey.CREATE_TOPICS: ((("topics",), "topics"),),
    ApiKey.DELETE_TOPICS: ((("topics", "topic_names"), "responses"),),
    ApiKey.DELETE_RECORDS: _TOPICS_AND_PARTITIONS,
    ApiKey.OFFSET_FOR_LEADER_EPOCH: _TOPICS_AND_PARTITIONS,
    ApiKey.DESCRIBE_CONFIGS: ((("resources",), "results"),),
    ApiKey.ALTER_CONFIGS: _RESOURCES,
    ApiKey.CREATE_PARTITIONS: ((("topics",), "results"),),
    ApiKey.INCREMENTAL_ALTER_CONFIGS: _RESOURCES,
    ApiKey.DESCRIBE_PRODUCERS: ((("topics",), "topics"), (("partition_indexes",), "partitions")),
}
# What says which item it is, under the same name in request and response.
_IDENTITY: Final = frozenset(
    {"name", "topic", "topic_id", "index", "partition", "partition_index", "resource_type", "resource_name"}
)
# The field for an item that is no struct but a name or a number.
_PLAIN_ITEMS: Final[Mapping[str, str]] = {
    "coordinator_keys": "key",
    "partition_indexes": "partition_index",
    "topic_names": "name",
}
# Fields whose default would be taken for an answer.
_UNKNOWN: Final[Mapping[str, int]] = {"base_offset": -1, "low_watermark": -1, "node_id": -1, "port": -1}


def error_answer(api_key: ApiKey, request: Any, version: int, code: ErrorCode, message: str) -> Any | None:
    """Return the response that says `code`; None where it has no place for it in this version."""
    response = APIS[api_key].response()
    told = _tell(response, version, code, message)
    path = _ITEMS.get(api_key)
    if path is not None and _answer_items(request, response, version, path, code, message):
        told = True
    return response if told else None


def _tell(answer: Any, version: int, code: ErrorCode, message: str) -> bool:
    """Set the error of an answer or of an item of it; whether there is a place for it."""
    told = False
    for field in answer.__wire__.fields:
        if version in field.versions and field.name in {"error_code", "error_message"}:
            setattr(answer, field.name, code if field.name == "error_code" else message)
            told = told or field.name == "error_code"
    return told


def _answer_items(request: Any, response: Any, version: int, path: _Path, code: ErrorCode, message: str) -> bool:
    """Answer each item of the request; whether there was one, and a place for its answer."""
    (asked, answered), *inner = path
    (field,) = (field for field in response.__wire__.fields if field.name == answered)
    answers = []
    if version in field.versions:
        for array in asked:
            for item in getattr(request, array) or ():
                answer = field.struct_class()()
                _identify(item, answer, array)
                _tell(answer, version, code, message)
                if not inner or _answer_items(item, answer, version, inner, code, message):
                    answers.append(answer)
    setattr(response, answered, answers)
    return bool(answers)


def _identify(item: Any, answer: Any, array: str) -> None:
    if array in _PLAIN_ITEMS:
        setattr(answer, _PLAIN_ITEMS[array], item)
    for field in answer.__wire__.fields:
        if field.name in _UNKNOWN:
            setattr(answer, field.name, _UNKNOWN[field.name])
        elif field.name in _IDENTITY and array not in _PLAIN_ITEMS and hasattr(item, field.name):
            setattr(answer, field.name, getattr(item, field.name))
