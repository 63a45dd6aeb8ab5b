"""Clients of schema registries that speak Confluent's REST interface, ours and others.

client.py, async_client.py   the two faces         calls.py     what they ask, as steps without I/O
attempts.py   whom to ask next, when to give up    http.py      exchanges over HTTP
cache.py      what is remembered                   errors.py    the table of codes
"""

from millstream.schemas.client.async_client import AsyncRegistryClient
from millstream.schemas.client.client import RegistryClient
from millstream.schemas.client.config import RegistryConfig
from millstream.schemas.client.errors import RegistryError, RegistryUnavailableError
from millstream.schemas.client.registered import (
    ListedSchema,
    Mode,
    RegisteredSchema,
    SchemaText,
    SubjectConfig,
    SubjectVersion,
)
from millstream.schemas.error_codes import RegistryErrorCode

__all__ = [
    "AsyncRegistryClient",
    "ListedSchema",
    "Mode",
    "RegisteredSchema",
    "RegistryClient",
    "RegistryConfig",
    "RegistryError",
    "RegistryErrorCode",
    "RegistryUnavailableError",
    "SchemaText",
    "SubjectConfig",
    "SubjectVersion",
]
