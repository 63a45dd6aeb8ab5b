"""One module per API: a plain function from request and context to a response, or to a Delayed one.

`HANDLERS` says which function serves which API; its module is imported on first use, so that a start pays for none.
An API is advertised when it stands here, and not before.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from millstream.core.wire import ApiKey

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.broker.context import RequestContext

# (broker, request, context) -> response | Delayed of one | None, which is no response at all (Produce with acks=0).
Handler = Callable[["Broker", Any, "RequestContext"], Any]

HANDLERS: Final[Mapping[ApiKey, str]] = {
    ApiKey.PRODUCE: "produce:produce",
    ApiKey.FETCH: "fetch:fetch",
    ApiKey.LIST_OFFSETS: "list_offsets:list_offsets",
    ApiKey.METADATA: "metadata:metadata",
    ApiKey.OFFSET_COMMIT: "offset_commit:offset_commit",
    ApiKey.OFFSET_FETCH: "offset_fetch:offset_fetch",
    ApiKey.FIND_COORDINATOR: "find_coordinator:find_coordinator",
    ApiKey.JOIN_GROUP: "join_group:join_group",
    ApiKey.HEARTBEAT: "heartbeat:heartbeat",
    ApiKey.LEAVE_GROUP: "leave_group:leave_group",
    ApiKey.SYNC_GROUP: "sync_group:sync_group",
    ApiKey.DESCRIBE_GROUPS: "describe_groups:describe_groups",
    ApiKey.LIST_GROUPS: "list_groups:list_groups",
    ApiKey.API_VERSIONS: "api_versions:api_versions",
    ApiKey.CREATE_TOPICS: "create_topics:create_topics",
    ApiKey.DELETE_TOPICS: "delete_topics:delete_topics",
    ApiKey.DELETE_RECORDS: "delete_records:delete_records",
    ApiKey.INIT_PRODUCER_ID: "init_producer_id:init_producer_id",
    ApiKey.OFFSET_FOR_LEADER_EPOCH: "offset_for_leader_epoch:offset_for_leader_epoch",
    ApiKey.DESCRIBE_CONFIGS: "describe_configs:describe_configs",
    ApiKey.ALTER_CONFIGS: "alter_configs:alter_configs",
    ApiKey.DESCRIBE_LOG_DIRS: "describe_log_dirs:describe_log_dirs",
    ApiKey.CREATE_PARTITIONS: "create_partitions:create_partitions",
    ApiKey.INCREMENTAL_ALTER_CONFIGS: "incremental_alter_configs:incremental_alter_configs",
    ApiKey.DELETE_GROUPS: "delete_groups:delete_groups",
    ApiKey.OFFSET_DELETE: "offset_delete:offset_delete",
    ApiKey.ALTER_REPLICA_LOG_DIRS: "alter_replica_log_dirs:alter_replica_log_dirs",
    ApiKey.ELECT_LEADERS: "elect_leaders:elect_leaders",
    ApiKey.ALTER_PARTITION_REASSIGNMENTS: "alter_partition_reassignments:alter_partition_reassignments",
    ApiKey.LIST_PARTITION_REASSIGNMENTS: "list_partition_reassignments:list_partition_reassignments",
    ApiKey.DESCRIBE_CLIENT_QUOTAS: "describe_client_quotas:describe_client_quotas",
    ApiKey.ALTER_CLIENT_QUOTAS: "alter_client_quotas:alter_client_quotas",
    ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS: "describe_user_scram_credentials:describe_user_scram_credentials",
    ApiKey.ALTER_USER_SCRAM_CREDENTIALS: "alter_user_scram_credentials:alter_user_scram_credentials",
    ApiKey.LIST_CONFIG_RESOURCES: "list_config_resources:list_config_resources",
    ApiKey.DESCRIBE_TOPIC_PARTITIONS: "describe_topic_partitions:describe_topic_partitions",
    ApiKey.DESCRIBE_CLUSTER: "describe_cluster:describe_cluster",
    ApiKey.DESCRIBE_PRODUCERS: "describe_producers:describe_producers",
    ApiKey.CONSUMER_GROUP_HEARTBEAT: "consumer_group_heartbeat:consumer_group_heartbeat",
    ApiKey.CONSUMER_GROUP_DESCRIBE: "consumer_group_describe:consumer_group_describe",
}

_loaded: dict[int, Handler] = {}


def load_handler(api_key: int) -> Handler:
    """Return the function that serves an API; KeyError where none does."""
    handler = _loaded.get(api_key)
    if handler is None:
        module, _, function = HANDLERS[ApiKey(api_key)].partition(":")
        handler = getattr(importlib.import_module(f"{__name__}.{module}"), function)
        _loaded[api_key] = handler
    return handler
