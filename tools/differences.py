"""What differs from Apache Kafka 4.3 on purpose: the table of docs/compatibility.md that `tools.compatibility` writes.

What is not here, in requests served and their answers, is to be as Kafka has it: the tests that hold both brokers
against each other (`tests/interop`, `tests/core/broker/test_*_differential.py`, `tests/core/groups`) know no other
exceptions. A difference that is found is mended, or gets its row here and its exception there.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Difference(NamedTuple):
    """One difference: what it concerns, how either does it, why, and the file of this project that decides it."""

    subject: str
    here: str
    kafka: str
    reason: str
    where: str


DIFFERENCES: Final = (
    Difference(
        "Listening",
        "without `listeners`: on 127.0.0.1 only",
        "on all addresses",
        "nobody is authenticated yet",
        "src/millstream/core/config/broker_configs.py",
    ),
    Difference(
        "Memory for requests",
        "`queued.max.request.bytes` is bounded unless set, and -1 means the default",
        "-1, the default, is endless",
        "everything is bounded; bytes count as they arrive, and over it the slowest unfinished frame's connection "
        "is closed",
        "src/millstream/core/broker/memory_pool.py",
    ),
    Difference(
        "Data directory",
        "without `log.dirs`: `millstream-data` in the working directory",
        "`/tmp/kafka-logs`",
        "`/tmp` is emptied",
        "src/millstream/core/config/broker_configs.py",
    ),
    Difference(
        "Metadata",
        "an SQLite file; `__cluster_metadata` of Kafka is read once, and left as it is",
        "a Raft log",
        "one node needs no quorum; going back to Kafka means going back to its metadata of that day",
        "src/millstream/core/cluster/embedded_store.py",
    ),
    Difference(
        "Transactions",
        "InitProducerId with a transactional id, and Produce within a transaction, are refused for good",
        "served",
        "not built yet; clients end at once instead of asking on",
        "src/millstream/core/broker/handlers/init_producer_id.py",
    ),
    Difference(
        "Produce: offsets inside a batch",
        "run from 0 without a gap, else INVALID_RECORD",
        "takes some others",
        "readers, the cleaner and recovery count on it; no client sends others",
        "src/millstream/core/records/validation.py",
    ),
    Difference(
        "Produce: attributes",
        "a producer may set neither LogAppendTime nor a delete horizon",
        "takes them",
        "both are the broker's to say",
        "src/millstream/core/records/validation.py",
    ),
    Difference(
        "Produce: bytes behind a batch",
        "are refused",
        "are not always refused",
        "they would be stored",
        "src/millstream/core/records/validation.py",
    ),
    Difference(
        "Produce: which records are at fault",
        "the first thousand are named",
        "all are",
        "a hostile batch would have a large answer made",
        "src/millstream/core/records/validation.py",
    ),
    Difference(
        "Fetch: the end of the records",
        "whole batches only",
        "the limit is filled with the beginning of a batch",
        "clients throw that away",
        "src/millstream/core/log/log_reader.py",
    ),
    Difference(
        "Fetch: a damaged batch",
        "every batch read has its CRC checked; CORRUPT_MESSAGE at the damaged one, what lies behind it is served",
        "damage is sent to clients, which find it",
        "a consumer must not have to know",
        "src/millstream/core/log/log_reader.py",
    ),
    Difference(
        "Words of errors",
        "data requests may say more where Kafka is silent; admin requests have Kafka's sentences, but for tiered "
        "storage and cordoned directories, which are not there",
        "its own",
        "people search for Kafka's sentences",
        "tests/core/broker/test_data_differential.py",
    ),
    Difference(
        "DescribeConfigs: documentation",
        "our own words",
        "Kafka's",
        "it says what this broker does",
        "src/millstream/core/config/topic_configs.py",
    ),
    Difference(
        "DescribeConfigs of client metrics",
        "INVALID_REQUEST",
        "defaults",
        "they would be of configs that nothing obeys",
        "src/millstream/core/broker/handlers/describe_configs.py",
    ),
    Difference(
        "`min.cleanable.dirty.ratio=NaN`",
        "refused",
        "taken",
        "a cleaner that compares with it would never run",
        "tests/interop/test_config_validation.py",
    ),
    Difference(
        "`min.insync.replicas`",
        "a default as any other",
        "a dynamic default of the cluster (eligible leader replicas, KIP-966)",
        "one node has no such replicas",
        "tests/core/broker/test_admin_differential.py",
    ),
    Difference(
        "Loggers (BROKER_LOGGER)",
        "Python's names, as `millstream.core.broker`",
        "Java's",
        "they are what is written to the log",
        "src/millstream/core/broker/log_levels.py",
    ),
    Difference(
        "Classic groups: a request that another one overtakes",
        "is answered: a second JoinGroup of one member, a SyncGroup of one that was removed",
        "is forgotten, and the client waits for its time limit",
        "whoever waits is answered once",
        "src/millstream/core/groups/classic/group.py",
    ),
    Difference(
        "OffsetFetch with an epoch and without a member id",
        "UNKNOWN_MEMBER_ID from a group of the consumer protocol",
        "UNKNOWN_SERVER_ERROR",
        "Kafka's is a failure of its own; nobody is no member",
        "src/millstream/core/groups/consumer/group.py",
    ),
    Difference(
        "Subscriptions by regular expression",
        "8,000 characters at most",
        "as long as the request",
        "RE2 compiles longer ones for milliseconds, on the thread that serves everybody",
        "src/millstream/core/groups/consumer/regexes.py",
    ),
    Difference(
        "Consumer groups that read thousands of topics",
        "a new target is made in slices behind the heartbeat that asks for it, and told with a later one; above 4,096 "
        "members, partitions and subscribed topics together",
        "on a thread of its own (`group.consumer.assignor.offload.enable`)",
        "one loop serves everybody; small groups have theirs with the heartbeat that asks",
        "src/millstream/core/groups/consumer/target_refresh.py",
    ),
    Difference(
        "Consumer groups: a member that takes another instance id",
        "the one it had is free",
        "that one stays bound to it, also when it has left: who comes with it is refused with UNKNOWN_MEMBER_ID",
        "the instance would be locked out for as long as the coordinator runs",
        "src/millstream/core/groups/consumer/group.py",
    ),
    Difference(
        "The cleaner's hash of keys",
        "SipHash with a secret of the process, 128 bits",
        "MD5",
        "nobody can make two keys that meet, and it is faster",
        "src/millstream/core/log/cleaner/offset_map.py",
    ),
    Difference(
        "A partition that cannot be cleaned",
        "is also named in the file `uncleanable-partitions`, for `millstream doctor`",
        "is in the log and a metric",
        "the metric is gone when the broker is",
        "src/millstream/core/log/cleaner/log_cleaner.py",
    ),
    Difference(
        "Directories of unknown topics",
        "are deleted only where the metadata knows that the topic was deleted; else kept as `-stray`",
        "are kept as `-stray`, deleted ones too",
        "what nobody asked to delete stays",
        "src/millstream/core/log/directory_start.py",
    ),
    Difference(
        "Index files of active segments",
        "have the size of their entries",
        "are preallocated and mapped",
        "a write is a call either way; Kafka trims and reads them",
        "src/millstream/core/log/offset_index.py",
    ),
    Difference(
        "Metrics",
        "Prometheus text at `/metrics`, with the names of Kafka's usual exporter",
        "JMX",
        "there is no JVM",
        "src/millstream/core/broker/http.py",
    ),
)
