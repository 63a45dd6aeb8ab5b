"""The admin client without await: the same calls, run on the process's background loop, each waited for."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from millstream.core.client.admin.admin import Admin as AsyncAdmin
from millstream.core.client.blocking.client import BlockingClient
from millstream.core.client.security import TokenProvider
from millstream.core.config.client_config import Given

P = ParamSpec("P")
R = TypeVar("R")


def _waited_for(
    method: Callable[Concatenate[AsyncAdmin, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Admin, P], R]:
    """Return `method` with the same parameters and docstring, as a call that waits for its end."""

    @functools.wraps(method)
    def call(self: Admin, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._thread.run(method(self._admin, *args, **kwargs))

    return call


class Admin(BlockingClient):
    """A cluster's admin client; a context manager, for any thread.

    Configs are Kafka's, as keywords in snake_case or in a mapping by their own names. Every call takes `timeout_s`, in
    place of default_api_timeout_ms; a call for many items returns a mapping to results or KafkaErrors, a call for one
    raises. Raises ConfigError.

    with Admin("127.0.0.1:9092") as admin:
        admin.create_topic("flights", partitions=6)
    """

    def __init__(
        self,
        bootstrap_servers: str | Iterable[str] | Mapping[str, Given] | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        sasl_token_provider: TokenProvider | None = None,
        **configs: Given,
    ) -> None:
        """Read the configuration; the first call connects."""
        self._admin = AsyncAdmin(
            bootstrap_servers, ssl_context=ssl_context, sasl_token_provider=sasl_token_provider, **configs
        )
        super().__init__(self._admin)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    close = _waited_for(AsyncAdmin.close)
    list_topics = _waited_for(AsyncAdmin.list_topics)
    describe_topics = _waited_for(AsyncAdmin.describe_topics)
    describe_topic = _waited_for(AsyncAdmin.describe_topic)
    create_topics = _waited_for(AsyncAdmin.create_topics)
    create_topic = _waited_for(AsyncAdmin.create_topic)
    delete_topics = _waited_for(AsyncAdmin.delete_topics)
    delete_topic = _waited_for(AsyncAdmin.delete_topic)
    create_partitions = _waited_for(AsyncAdmin.create_partitions)
    describe_configs = _waited_for(AsyncAdmin.describe_configs)
    describe_config = _waited_for(AsyncAdmin.describe_config)
    alter_configs = _waited_for(AsyncAdmin.alter_configs)
    set_config = _waited_for(AsyncAdmin.set_config)
    replace_configs = _waited_for(AsyncAdmin.replace_configs)
    list_config_resources = _waited_for(AsyncAdmin.list_config_resources)
    list_client_metrics_resources = _waited_for(AsyncAdmin.list_client_metrics_resources)
    list_offsets = _waited_for(AsyncAdmin.list_offsets)
    delete_records = _waited_for(AsyncAdmin.delete_records)
    describe_producers = _waited_for(AsyncAdmin.describe_producers)
    describe_cluster = _waited_for(AsyncAdmin.describe_cluster)
    describe_log_dirs = _waited_for(AsyncAdmin.describe_log_dirs)
    alter_replica_log_dirs = _waited_for(AsyncAdmin.alter_replica_log_dirs)
    elect_leaders = _waited_for(AsyncAdmin.elect_leaders)
    alter_partition_reassignments = _waited_for(AsyncAdmin.alter_partition_reassignments)
    list_partition_reassignments = _waited_for(AsyncAdmin.list_partition_reassignments)
    list_groups = _waited_for(AsyncAdmin.list_groups)
    describe_groups = _waited_for(AsyncAdmin.describe_groups)
    describe_group = _waited_for(AsyncAdmin.describe_group)
    delete_groups = _waited_for(AsyncAdmin.delete_groups)
    remove_group_members = _waited_for(AsyncAdmin.remove_group_members)
    list_group_offsets = _waited_for(AsyncAdmin.list_group_offsets)
    alter_group_offsets = _waited_for(AsyncAdmin.alter_group_offsets)
    delete_group_offsets = _waited_for(AsyncAdmin.delete_group_offsets)
    describe_client_quotas = _waited_for(AsyncAdmin.describe_client_quotas)
    alter_client_quotas = _waited_for(AsyncAdmin.alter_client_quotas)
    describe_user_scram_credentials = _waited_for(AsyncAdmin.describe_user_scram_credentials)
    alter_user_scram_credentials = _waited_for(AsyncAdmin.alter_user_scram_credentials)
