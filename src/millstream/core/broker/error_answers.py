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
# outside in; None where the response has no such level.
_Path = Sequence[tuple[Sequence[str], str | None]]
_TOPICS_AND_PARTITIONS: Final[_Path] = ((("topics",), "topics"), (("partitions",), "partitions"))
_TOPICS: Final[_Path] = ((("topics",), "topics"),)
_RESOURCES: Final[_Path] = ((("resources",), "responses"),)
_ITEMS: Final[Mapping[ApiKey, _Path]] = {
    ApiKey.PRODUCE: ((("topic_data",), "responses"), (("partition_data",), "partition_responses")),
    ApiKey.LIST_OFFSETS: _TOPICS_AND_PARTITIONS,
    ApiKey.METADATA: _TOPICS,
    ApiKey.OFFSET_COMMIT: _TOPICS_AND_PARTITIONS,
    ApiKey.OFFSET_FETCH: ((("topics",), "topics"), (("partition_indexes",), "partitions")),
    ApiKey.FIND_COORDINATOR: ((("coordinator_keys",), "coordinators"),),
    ApiKey.DESCRIBE_GROUPS: ((("groups",), "groups"),),
    ApiKey.CREATE_TOPICS: _TOPICS,
    ApiKey.DELETE_TOPICS: ((("topics", "topic_names"), "responses"),),
    ApiKey.DELETE_RECORDS: _TOPICS_AND_PARTITIONS,
    ApiKey.OFFSET_FOR_LEADER_EPOCH: _TOPICS_AND_PARTITIONS,
    ApiKey.DESCRIBE_CONFIGS: ((("resources",), "results"),),
    ApiKey.ALTER_CONFIGS: _RESOURCES,
    ApiKey.ALTER_REPLICA_LOG_DIRS: ((("dirs",), None), (("topics",), "results"), (("partitions",), "partitions")),
    ApiKey.CREATE_PARTITIONS: ((("topics",), "results"),),
    ApiKey.DELETE_GROUPS: ((("groups_names",), "results"),),
    ApiKey.ELECT_LEADERS: ((("topic_partitions",), "replica_election_results"), (("partitions",), "partition_result")),
    ApiKey.INCREMENTAL_ALTER_CONFIGS: _RESOURCES,
    ApiKey.ALTER_CLIENT_QUOTAS: ((("entries",), "entries"),),
    ApiKey.ALTER_USER_SCRAM_CREDENTIALS: ((("deletions", "upsertions"), "results"),),
    ApiKey.DESCRIBE_PRODUCERS: ((("topics",), "topics"), (("partition_indexes",), "partitions")),
    ApiKey.CONSUMER_GROUP_DESCRIBE: ((("group_ids",), "groups"),),
    ApiKey.DESCRIBE_TOPIC_PARTITIONS: _TOPICS,
}
# Versions whose response has another shape than the table says.
_FETCHES_OF_GROUPS_FROM: Final = 8
_GROUPS: Final[_Path] = ((("groups",), "groups"),)
# What says which item it is: its field in the response, and under which names the request may have it.
_IDENTITY: Final[Mapping[str, Sequence[str]]] = {
    "name": ("name",),
    "topic": ("topic",),
    "topic_name": ("name",),
    "topic_id": ("topic_id",),
    "index": ("index",),
    "partition": ("partition",),
    "partition_index": ("partition_index",),
    "group_id": ("group_id",),
    "entity": ("entity",),
    "user": ("name",),
    "resource_type": ("resource_type",),
    "resource_name": ("resource_name",),
}
# The field for an item that is no struct but a name or a number: the first that the answer has.
_PLAIN_IDENTITY: Final = ("key", "name", "group_id", "partition_index", "partition_id")
# Fields whose default would be taken for an answer.
_UNKNOWN: Final[Mapping[str, int]] = {
    "base_offset": -1,
    "low_watermark": -1,
    "committed_offset": -1,
    "node_id": -1,
    "port": -1,
}


def error_answer(api_key: ApiKey, request: Any, version: int, code: ErrorCode, message: str) -> Any | None:
    """Return the response that says `code`; None where it has no place for it in this version."""
    response = APIS[api_key].response()
    told = _tell(response, version, code, message)
    path = _ITEMS.get(api_key)
    if api_key is ApiKey.OFFSET_FETCH and version >= _FETCHES_OF_GROUPS_FROM:
        path = _GROUPS
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
    items = [item for array in asked for item in getattr(request, array) or ()]
    if answered is None:
        told = [_answer_items(item, response, version, inner, code, message) for item in items]
        return any(told)
    (field,) = (field for field in response.__wire__.fields if field.name == answered)
    if version not in field.versions:
        return False
    answers = getattr(response, answered)
    for item in items:
        answer = field.struct_class()()
        _identify(item, answer)
        _tell(answer, version, code, message)
        if not inner or _answer_items(item, answer, version, inner, code, message):
            answers.append(answer)
    return bool(answers)


def _identify(item: Any, answer: Any) -> None:
    names = [field.name for field in answer.__wire__.fields]
    for name in names:
        if name in _UNKNOWN:
            setattr(answer, name, _UNKNOWN[name])
    if isinstance(item, str | int):
        setattr(answer, next(name for name in _PLAIN_IDENTITY if name in names), item)
        return
    for name in names:
        for asked in _IDENTITY.get(name, ()):
            if hasattr(item, asked):
                setattr(answer, name, getattr(item, asked))
