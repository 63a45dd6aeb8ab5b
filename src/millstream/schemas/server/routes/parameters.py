"""Parameters that several endpoints take."""

from __future__ import annotations

from typing import Final

from millstream.schemas.server.api import ApiRequest, Kind, Parameter
from millstream.schemas.server.registry import Registry
from millstream.schemas.server.state import Version

FORMAT: Final = Parameter("format", Kind.TEXT, "Form of the schema's text; what a type does not know has no effect.")
REFERENCE_FORMAT: Final = Parameter("referenceFormat", Kind.TEXT, "`qualified`: references say their contexts.")
DELETED: Final = Parameter("deleted", Kind.FLAG, "Whether what is soft-deleted counts.")
NORMALIZE: Final = Parameter("normalize", Kind.FLAG, "Whether the schema is normalised first.")
PERMANENT: Final = Parameter("permanent", Kind.FLAG, "For good; it has to be soft-deleted before.")
VERBOSE: Final = Parameter("verbose", Kind.FLAG, "Whether the answer says what is incompatible.")
SUBJECT: Final = Parameter("subject", Kind.TEXT, "The subject, or its context, that an id is looked up in.")
FIND_TAGS: Final = Parameter("findTags", Kind.TEXT, "Taken and without effect: tags are not kept here.")
OFFSET: Final = Parameter("offset", Kind.NUMBER, "How many of a listing are passed over.")
LIMIT: Final = Parameter("limit", Kind.NUMBER, "How many of a listing are returned, within the configured bound.")
PAGE: Final = (OFFSET, LIMIT)


def window(registry: Registry, request: ApiRequest, what: str) -> slice:
    """Return which part of a listing is wanted, within what is configured for listings of its kind."""
    config = registry.config
    return request.window(config.integer(f"{what}.search.default.limit"), config.integer(f"{what}.search.max.limit"))


async def formatted(registry: Registry, version: Version, asked: str) -> str | None:
    """Return the text in the form asked for, None where that is how it is stored. Raises RegistryRefusal."""
    return await registry.formatted(version, asked) if asked.strip() else None
