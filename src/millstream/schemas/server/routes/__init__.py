"""The endpoints of the REST interface, a module for each of Confluent's resources."""

from __future__ import annotations

from typing import Final

from millstream.schemas.server.api import Endpoint
from millstream.schemas.server.routes import compatibility, config, contexts, mode, schemas, service, subjects, versions

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *schemas.ENDPOINTS,
    *subjects.ENDPOINTS,
    *versions.ENDPOINTS,
    *compatibility.ENDPOINTS,
    *config.ENDPOINTS,
    *mode.ENDPOINTS,
    *contexts.ENDPOINTS,
    *service.ENDPOINTS,
)
