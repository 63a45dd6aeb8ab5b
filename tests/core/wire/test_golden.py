"""Frames of real clients and of Apache Kafka: decoded and encoded again they are the same bytes.

Each file in `golden` names the client and the broker it was captured from; `python -m tools.record_golden` records them
again.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from millstream.core.wire import (
    APIS,
    ApiKey,
    RequestHeader,
    decode,
    encode,
    encode_request_header,
    encode_response_header,
    parse_request_header,
    parse_response_header,
)

GOLDEN: Final = Path(__file__).parent / "golden"
FILES: Final = sorted(GOLDEN.glob("*.jsonl"))
# Clients that must be among them, by the start of their names.
CLIENTS: Final = ("Apache Kafka", "Java kafka-clients", "aiokafka", "confluent-kafka", "kafka-python")


class Frame(NamedTuple):
    api: ApiKey
    version: int
    kind: str
    data: bytes


@cache
def load(path: Path) -> tuple[dict[str, Any], list[Frame]]:
    head, *lines = (json.loads(line) for line in path.read_text().splitlines())
    return head, [
        Frame(ApiKey[line["api"]], line["version"], line["kind"], bytes.fromhex(line["frame"])) for line in lines
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_decoded_and_encoded_again_they_are_the_same_bytes(path: Path) -> None:
    head, frames = load(path)
    assert frames
    for frame in frames:
        cls = getattr(APIS[frame.api], frame.kind)
        version = frame.version
        if frame.kind == "request":
            header, position = parse_request_header(frame.data)
            assert header == RequestHeader(frame.api, version, header.correlation_id, header.client_id)
            prefix = encode_request_header(frame.api, version, header.correlation_id, header.client_id)
        else:
            correlation_id, position = parse_response_header(frame.api, version, frame.data)
            prefix = encode_response_header(frame.api, version, correlation_id)
        message, end = decode(cls, version, frame.data, position)
        where = f"{head['client']}: {cls.__name__} {version}"
        assert end == len(frame.data), f"{where}: {len(frame.data) - end} bytes are left"
        assert encode(message, version, prefix).hex() == frame.data.hex(), where


def test_every_client_is_there_and_named_with_its_version() -> None:
    heads = [load(path)[0] for path in FILES]
    for client in CLIENTS:
        (name,) = (head["client"] for head in heads if head["client"].startswith(client))
        assert any(letter.isdigit() for letter in name.removeprefix(client)), name
    assert {head["broker"] for head in heads} == {"Apache Kafka 4.3.0"}


@pytest.mark.parametrize("api", APIS.values(), ids=lambda api: api.name)
def test_every_api_has_golden_bytes_in_both_directions(api: Any) -> None:
    kinds = {frame.kind for path in FILES for frame in load(path)[1] if frame.api is api.key}
    assert kinds == {"request", "response"}


def test_most_versions_have_golden_bytes() -> None:
    """Which versions clients can be made to speak depends on them; many fewer mean a recording that went wrong."""
    recorded = {(frame.api, frame.version, frame.kind) for path in FILES for frame in load(path)[1]}
    wanted = {
        (api.key, version, kind)
        for api in APIS.values()
        for version in api.versions
        for kind in ("request", "response")
    }
    assert recorded <= wanted
    assert len(recorded) > 0.8 * len(wanted), sorted(
        f"{key.name} {version} {kind}" for key, version, kind in wanted - recorded
    )
