"""The error codes of registries, as Confluent numbers them: one table for the server that answers with them and the
client that reads them.

A code of five digits is an HTTP status followed by two digits; one of three is that status alone. Answers carry them as
`{"error_code": 40401, "message": "..."}`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class RegistryErrorCode(IntEnum):
    """A code, and what it says in general; the message of an answer says it of the case."""

    sentence: str

    def __new__(cls, code: int, sentence: str = "") -> Self:
        made = int.__new__(cls, code)
        made._value_ = code
        made.sentence = sentence
        return made

    BAD_REQUEST = 400, "the request is none"
    UNAUTHORIZED = 401, "a user and a password are asked for"
    FORBIDDEN = 403, "this user may not do that"
    NOT_FOUND = 404, "the path leads nowhere"
    METHOD_NOT_ALLOWED = 405, "the path has no such method"
    NOT_ACCEPTABLE = 406, "no answer has the type that was asked for"
    REQUEST_TIMEOUT = 408, "the request came too slowly"
    BODY_TOO_LARGE = 413, "the body is larger than is taken"
    UNSUPPORTED_MEDIA_TYPE = 415, "the body is of a type that is not taken"
    UNPROCESSABLE = 422, "a field of the body is not what it has to be"
    INTERNAL = 500, "something went wrong that nobody foresaw"
    SUBJECT_NOT_FOUND = 40401, "there is no such subject"
    VERSION_NOT_FOUND = 40402, "the subject has no such version"
    SCHEMA_NOT_FOUND = 40403, "there is no such schema"
    SUBJECT_SOFT_DELETED = 40404, "the subject is soft-deleted already"
    SUBJECT_NOT_SOFT_DELETED = 40405, "the subject has to be soft-deleted first"
    VERSION_SOFT_DELETED = 40406, "the version is soft-deleted already"
    VERSION_NOT_SOFT_DELETED = 40407, "the version has to be soft-deleted first"
    SUBJECT_COMPATIBILITY_NOT_CONFIGURED = 40408, "the subject has no config of its own"
    SUBJECT_MODE_NOT_CONFIGURED = 40409, "the subject has no mode of its own"
    INCOMPATIBLE_SCHEMA = 40901, "the schema is incompatible with an earlier one"
    INVALID_SCHEMA = 42201, "the schema is not valid"
    INVALID_VERSION = 42202, "this is no version's number"
    INVALID_COMPATIBILITY_LEVEL = 42203, "there is no such compatibility level"
    INVALID_MODE = 42204, "there is no such mode"
    OPERATION_NOT_PERMITTED = 42205, "the mode, or the configuration, does not permit it"
    REFERENCE_EXISTS = 42206, "another schema refers to it"
    ID_DOES_NOT_MATCH = 42207, "the schema has another id"
    INVALID_SUBJECT = 42208, "nothing may be written under this subject"
    SCHEMA_TOO_LARGE = 42209, "the schema is larger than a record of the topic may be"
    INVALID_RULE_SET = 42210, "the rules are not in the form of rules"
    CONTEXT_NOT_EMPTY = 42211, "the context has subjects"
    STORE_ERROR = 50001, "the topic can't be written or read"
    OPERATION_TIMEOUT = 50002, "it took too long; it may have been done"
    FORWARDING_FAILED = 50003, "the leader did not answer this instance"
    UNKNOWN_LEADER = 50004, "no instance is known to lead"

    @property
    def status(self) -> int:
        """The HTTP status it is answered with."""
        return self // 100 if self >= 1000 else int(self)

    @property
    def retriable(self) -> bool:
        """Whether the registry may answer otherwise a little later: it has a leader again, its store is back."""
        return self >= RegistryErrorCode.STORE_ERROR
