"""/contexts: the contexts there are. `/contexts/{context}/...` is any other path within one: see `paths.py`."""

from __future__ import annotations

from typing import Any, Final

from millstream.schemas.error_codes import RegistryErrorCode
from millstream.schemas.server.api import Answer, ApiRequest, Endpoint, Kind, Parameter
from millstream.schemas.server.errors import RegistryRefusal
from millstream.schemas.server.registry import Registry
from millstream.schemas.server.routes.parameters import PAGE, window
from millstream.schemas.server.subjects import context_prefix


async def list_contexts(registry: Registry, request: ApiRequest) -> Any:
    """The names of contexts."""
    prefix = request.text("contextPrefix")
    found = [one for one in registry.state.contexts() if one.startswith(prefix)]
    return found[window(registry, request, "context")]


async def delete_context(registry: Registry, request: ApiRequest) -> Any:
    """Delete an empty one."""
    try:
        context = context_prefix(request.values["context"])
    except ValueError as error:
        raise RegistryRefusal(RegistryErrorCode.BAD_REQUEST, str(error)) from error
    await registry.delete_context(context)
    return Answer(None, 204)


ENDPOINTS: Final = (
    Endpoint(
        "GET",
        "/contexts",
        list_contexts,
        "List contexts",
        (Parameter("contextPrefix", Kind.TEXT, "Only those that begin with it."), *PAGE),
        answer="Texts",
    ),
    Endpoint(
        "DELETE",
        "/contexts/{context}",
        delete_context,
        "Delete a context that has no subjects any more",
        answer="Nothing",
        writes=True,
        errors=(RegistryErrorCode.CONTEXT_NOT_EMPTY,),
    ),
)
