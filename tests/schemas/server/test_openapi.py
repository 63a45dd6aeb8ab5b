"""The OpenAPI description, and the server held against it by requests made from it."""

from __future__ import annotations

import pickle
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.support.registry import Asker

from millstream.schemas.error_codes import RegistryErrorCode
from millstream.schemas.server.openapi import description
from millstream.schemas.server.routes import ENDPOINTS

EXAMPLES: Final = 8
EXAMPLES_SOAK: Final = 300
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
schema: Final = schemathesis.openapi.from_dict(description())
OPERATIONS: Final = [(one.method, path) for path in schema for one in schema[path].values()]
# Of these not every request is a right one.
CAN_BE_WRONG: Final = {
    (endpoint.method, endpoint.path.replace(":int", ""))
    for endpoint in ENDPOINTS
    if endpoint.parameters or endpoint.body or "{" in endpoint.path.replace("{subject}", "")
}
CASES: Final = [
    (*operation, mode)
    for operation in OPERATIONS
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    if mode is GenerationMode.POSITIVE or (operation[0].upper(), operation[1]) in CAN_BE_WRONG
]


def test_every_endpoint_is_described_once() -> None:
    described = {(method.upper(), path) for path, operations in description()["paths"].items() for method in operations}
    assert len(described) == len(ENDPOINTS) == len(OPERATIONS)
    names = [one["operationId"] for operations in description()["paths"].values() for one in operations.values()]
    assert len(set(names)) == len(names)


def test_every_error_code_says_its_status() -> None:
    for code in RegistryErrorCode:
        assert 400 <= code.status < 600
        assert code.sentence
        assert pickle.loads(pickle.dumps(code)) is code is RegistryErrorCode(int(code))
    assert RegistryErrorCode.INCOMPATIBLE_SCHEMA.status == 409


def test_the_description_is_served(schemas: Asker) -> None:
    assert schemas.get("/openapi.json").body == description()
    page = schemas.get("/docs")
    assert page.content_type == "text/html; charset=utf-8"
    for endpoint in ENDPOINTS:
        assert endpoint.summary.replace("'", "&#x27;") in page.body


@pytest.mark.parametrize(("method", "path", "mode"), CASES, ids=lambda one: getattr(one, "value", one))
def test_requests_of_all_kinds_are_answered_as_described(
    schemas: Asker, method: str, path: str, mode: GenerationMode, soak: bool
) -> None:
    operation = schema[path][method]

    @seed(20_261)
    @settings(
        max_examples=EXAMPLES_SOAK if soak else EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        case.call_and_validate(base_url=schemas.url, checks=CHECKS, timeout=60)

    check()
