"""The protocol's errors, one table: code, Kafka's name, whether asking again may help, and what it means.

The codes, the names and which of them are retriable are Kafka's (its `Errors`); the sentences are ours and are what a
user reads where a handler has nothing more exact to say.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

_AGAIN: Final = True
_FINAL: Final = False


class ErrorCode(IntEnum):
    """An error of the protocol; a plain int on the wire. Unknown numbers: see `error_code`."""

    retriable: bool
    sentence: str

    def __new__(cls, code: int, retriable: bool, sentence: str) -> ErrorCode:
        """Make a member of one row of the table."""
        made = int.__new__(cls, code)
        made._value_ = code
        made.retriable = retriable
        made.sentence = sentence
        return made

    UNKNOWN_SERVER_ERROR = -1, _FINAL, "The server failed in a way it has no code for; its log says more."
    NONE = 0, _FINAL, "No error."
    OFFSET_OUT_OF_RANGE = 1, _FINAL, "The offset lies before the start or behind the end of the partition's log."
    CORRUPT_MESSAGE = 2, _AGAIN, "A batch fails its CRC, has an impossible size, or lacks a key that its topic demands."
    UNKNOWN_TOPIC_OR_PARTITION = 3, _AGAIN, "This broker has no such topic or partition."
    INVALID_FETCH_SIZE = 4, _FINAL, "The fetch asks for an impossible number of bytes."
    LEADER_NOT_AVAILABLE = 5, _AGAIN, "The partition has no leader at the moment; one is being elected."
    NOT_LEADER_OR_FOLLOWER = 6, _AGAIN, "This broker does not lead the partition, or holds no replica of it."
    REQUEST_TIMED_OUT = 7, _AGAIN, "The request was not done within its time limit."
    BROKER_NOT_AVAILABLE = 8, _FINAL, "The broker is not there."
    REPLICA_NOT_AVAILABLE = 9, _AGAIN, "The replica that was asked for is not there."
    MESSAGE_TOO_LARGE = 10, _FINAL, "A batch is larger than max.message.bytes of its topic."
    STALE_CONTROLLER_EPOCH = 11, _FINAL, "The request comes from a controller that has been replaced."
    OFFSET_METADATA_TOO_LARGE = 12, _FINAL, "The text committed along with an offset is too long."
    NETWORK_EXCEPTION = 13, _AGAIN, "The connection broke before an answer came."
    COORDINATOR_LOAD_IN_PROGRESS = 14, _AGAIN, "The coordinator is still reading its state."
    COORDINATOR_NOT_AVAILABLE = 15, _AGAIN, "No coordinator is available at the moment."
    NOT_COORDINATOR = 16, _AGAIN, "This broker is not the coordinator; look it up again."
    INVALID_TOPIC_EXCEPTION = 17, _FINAL, "The topic's name is not allowed, or the topic may not be used this way."
    RECORD_LIST_TOO_LARGE = 18, _FINAL, "A batch is larger than a segment of its topic may be."
    NOT_ENOUGH_REPLICAS = (
        19,
        _AGAIN,
        "Fewer replicas are in sync than min.insync.replicas demands; nothing was appended.",
    )
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = (
        20,
        _AGAIN,
        "The batch was appended, but by fewer in-sync replicas than demanded.",
    )
    INVALID_REQUIRED_ACKS = 21, _FINAL, "acks must be 0, 1 or -1 (all)."
    ILLEGAL_GENERATION = 22, _FINAL, "The member speaks of another generation than the group's current one."
    INCONSISTENT_GROUP_PROTOCOL = 23, _FINAL, "The member shares no protocol with the other members of its group."
    INVALID_GROUP_ID = 24, _FINAL, "The group id is empty or not allowed."
    UNKNOWN_MEMBER_ID = 25, _FINAL, "The group has no such member."
    INVALID_SESSION_TIMEOUT = 26, _FINAL, "The session timeout is outside of what the broker allows."
    REBALANCE_IN_PROGRESS = 27, _FINAL, "The group is rebalancing; the member must join again."
    INVALID_COMMIT_OFFSET_SIZE = 28, _FINAL, "The offsets of one commit are too large to be stored."
    TOPIC_AUTHORIZATION_FAILED = 29, _FINAL, "Not allowed on this topic."
    GROUP_AUTHORIZATION_FAILED = 30, _FINAL, "Not allowed on this group."
    CLUSTER_AUTHORIZATION_FAILED = 31, _FINAL, "Not allowed on this cluster."
    INVALID_TIMESTAMP = 32, _FINAL, "A record's timestamp is outside of what its topic accepts."
    UNSUPPORTED_SASL_MECHANISM = 33, _FINAL, "The broker does not offer this SASL mechanism."
    ILLEGAL_SASL_STATE = 34, _FINAL, "The request is not allowed at this step of the authentication."
    UNSUPPORTED_VERSION = 35, _FINAL, "The broker does not speak this version of the API."
    TOPIC_ALREADY_EXISTS = 36, _FINAL, "A topic of this name exists."
    INVALID_PARTITIONS = 37, _FINAL, "The number of partitions is not possible."
    INVALID_REPLICATION_FACTOR = 38, _FINAL, "The replication factor is below 1 or above the number of brokers."
    INVALID_REPLICA_ASSIGNMENT = 39, _FINAL, "The assignment of replicas to brokers is not possible."
    INVALID_CONFIG = 40, _FINAL, "A config name or value is not valid."
    NOT_CONTROLLER = 41, _AGAIN, "This broker is not the controller."
    INVALID_REQUEST = 42, _FINAL, "The request contradicts itself or the protocol."
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43, _FINAL, "Only record batches of magic 2 are supported."
    POLICY_VIOLATION = 44, _FINAL, "A policy of this cluster forbids what was asked."
    OUT_OF_ORDER_SEQUENCE_NUMBER = (
        45,
        _FINAL,
        "The batch does not follow the producer's last one; something in between is missing.",
    )
    DUPLICATE_SEQUENCE_NUMBER = 46, _FINAL, "The batch was appended before, too long ago to tell its offset."
    INVALID_PRODUCER_EPOCH = 47, _FINAL, "A newer instance of this producer has taken over."
    INVALID_TXN_STATE = 48, _FINAL, "The transaction is not in a state that allows this."
    INVALID_PRODUCER_ID_MAPPING = 49, _FINAL, "The producer id does not belong to this transactional id."
    INVALID_TRANSACTION_TIMEOUT = 50, _FINAL, "The transaction timeout is longer than the broker allows."
    CONCURRENT_TRANSACTIONS = 51, _AGAIN, "The producer's previous transaction is still being completed."
    TRANSACTION_COORDINATOR_FENCED = (
        52,
        _FINAL,
        "The marker comes from a transaction coordinator that has been replaced.",
    )
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53, _FINAL, "Not allowed on this transactional id."
    SECURITY_DISABLED = 54, _FINAL, "This cluster has no authorizer."
    OPERATION_NOT_ATTEMPTED = 55, _FINAL, "Not tried, because another part of the same request failed."
    KAFKA_STORAGE_ERROR = 56, _AGAIN, "The log directory of this partition failed."
    LOG_DIR_NOT_FOUND = 57, _FINAL, "The broker has no such log directory."
    SASL_AUTHENTICATION_FAILED = 58, _FINAL, "The credentials were not accepted."
    UNKNOWN_PRODUCER_ID = 59, _FINAL, "The broker remembers nothing of this producer id any more."
    REASSIGNMENT_IN_PROGRESS = 60, _FINAL, "A reassignment of this partition is under way."
    DELEGATION_TOKEN_AUTH_DISABLED = 61, _FINAL, "This cluster has no delegation tokens."
    DELEGATION_TOKEN_NOT_FOUND = 62, _FINAL, "There is no such delegation token."
    DELEGATION_TOKEN_OWNER_MISMATCH = 63, _FINAL, "The delegation token belongs to someone else."
    DELEGATION_TOKEN_REQUEST_NOT_ALLOWED = 64, _FINAL, "Delegation tokens can't be handled over this connection."
    DELEGATION_TOKEN_AUTHORIZATION_FAILED = 65, _FINAL, "Not allowed on this delegation token."
    DELEGATION_TOKEN_EXPIRED = 66, _FINAL, "The delegation token has expired."
    INVALID_PRINCIPAL_TYPE = 67, _FINAL, "Principals of this type are not supported."
    NON_EMPTY_GROUP = 68, _FINAL, "The group still has members."
    GROUP_ID_NOT_FOUND = 69, _FINAL, "There is no such group."
    FETCH_SESSION_ID_NOT_FOUND = 70, _AGAIN, "The broker no longer keeps this fetch session."
    INVALID_FETCH_SESSION_EPOCH = 71, _AGAIN, "The request is not the next one of its fetch session."
    LISTENER_NOT_FOUND = 72, _AGAIN, "The leader has no listener of the name that this connection came in by."
    TOPIC_DELETION_DISABLED = 73, _FINAL, "delete.topic.enable is false."
    FENCED_LEADER_EPOCH = 74, _AGAIN, "The request carries an older leader epoch than the partition has."
    UNKNOWN_LEADER_EPOCH = 75, _AGAIN, "The request carries a newer leader epoch than this broker knows."
    UNSUPPORTED_COMPRESSION_TYPE = 76, _FINAL, "This version of the request can't carry that compression."
    STALE_BROKER_EPOCH = 77, _FINAL, "The broker has registered again since this was sent."
    OFFSET_NOT_AVAILABLE = 78, _AGAIN, "The new leader does not know the high watermark yet."
    MEMBER_ID_REQUIRED = 79, _FINAL, "The member must join again with the id in this answer."
    PREFERRED_LEADER_NOT_AVAILABLE = 80, _AGAIN, "The preferred leader is not in sync."
    GROUP_MAX_SIZE_REACHED = 81, _FINAL, "The group has as many members as it may have."
    FENCED_INSTANCE_ID = 82, _FINAL, "Another member has taken over this static member's instance id."
    ELIGIBLE_LEADERS_NOT_AVAILABLE = 83, _AGAIN, "No replica that may become leader is there."
    ELECTION_NOT_NEEDED = 84, _AGAIN, "The partition has the leader that was asked for."
    NO_REASSIGNMENT_IN_PROGRESS = 85, _FINAL, "No reassignment of this partition is under way."
    GROUP_SUBSCRIBED_TO_TOPIC = 86, _FINAL, "The group is subscribed to the topic, so its offsets can't be deleted."
    INVALID_RECORD = 87, _FINAL, "A record is not valid for its topic."
    UNSTABLE_OFFSET_COMMIT = 88, _AGAIN, "An open transaction is about to commit other offsets."
    THROTTLING_QUOTA_EXCEEDED = 89, _AGAIN, "The client is over its quota; wait as long as the answer says."
    PRODUCER_FENCED = 90, _FINAL, "A newer producer with the same transactional id has taken over."
    RESOURCE_NOT_FOUND = 91, _FINAL, "There is no such resource."
    DUPLICATE_RESOURCE = 92, _FINAL, "The request names the same resource more than once."
    UNACCEPTABLE_CREDENTIAL = 93, _FINAL, "The credential does not meet what is demanded."
    INCONSISTENT_VOTER_SET = 94, _FINAL, "One of the two is no voter of the quorum."
    INVALID_UPDATE_VERSION = 95, _FINAL, "The update is based on a version that is no longer current."
    FEATURE_UPDATE_FAILED = 96, _FINAL, "The feature levels could not be changed."
    PRINCIPAL_DESERIALIZATION_FAILURE = 97, _FINAL, "The principal in a forwarded request can't be read."
    SNAPSHOT_NOT_FOUND = 98, _FINAL, "There is no such snapshot."
    POSITION_OUT_OF_RANGE = 99, _FINAL, "The position lies outside of the snapshot."
    UNKNOWN_TOPIC_ID = 100, _AGAIN, "This broker knows no topic of this id."
    DUPLICATE_BROKER_REGISTRATION = 101, _FINAL, "Another live broker has this id."
    BROKER_ID_NOT_REGISTERED = 102, _FINAL, "No broker of this id is registered."
    INCONSISTENT_TOPIC_ID = 103, _AGAIN, "The log on disk belongs to a topic of another id."
    INCONSISTENT_CLUSTER_ID = 104, _FINAL, "The request is meant for another cluster."
    TRANSACTIONAL_ID_NOT_FOUND = 105, _FINAL, "There is no such transactional id."
    FETCH_SESSION_TOPIC_ID_ERROR = 106, _AGAIN, "The fetch session mixes requests with and without topic ids."
    INELIGIBLE_REPLICA = 107, _FINAL, "The replica may not join the in-sync replicas now."
    NEW_LEADER_ELECTED = 108, _FINAL, "The change made another broker the leader."
    OFFSET_MOVED_TO_TIERED_STORAGE = 109, _FINAL, "The offset is no longer on the local disk."
    FENCED_MEMBER_EPOCH = 110, _FINAL, "The group coordinator has fenced this member; it must join again."
    UNRELEASED_INSTANCE_ID = 111, _FINAL, "Another live member holds this instance id."
    UNSUPPORTED_ASSIGNOR = 112, _FINAL, "The group coordinator does not have this assignor."
    STALE_MEMBER_EPOCH = 113, _FINAL, "The member's epoch is old; it must heartbeat and then try again."
    MISMATCHED_ENDPOINT_TYPE = 114, _FINAL, "The request went to the wrong kind of endpoint."
    UNSUPPORTED_ENDPOINT_TYPE = 115, _FINAL, "This kind of endpoint is not known here."
    UNKNOWN_CONTROLLER_ID = 116, _FINAL, "No controller of this id is known."
    UNKNOWN_SUBSCRIPTION_ID = (
        117,
        _FINAL,
        "The client's telemetry subscription is outdated; it must be asked for again.",
    )
    TELEMETRY_TOO_LARGE = 118, _FINAL, "The client pushed more metrics than the broker takes."
    INVALID_REGISTRATION = 119, _FINAL, "The controller does not accept this broker's registration."
    TRANSACTION_ABORTABLE = 120, _FINAL, "The transaction must be aborted; the producer may go on after that."
    INVALID_RECORD_STATE = 121, _FINAL, "The record's delivery state does not allow this acknowledgement."
    SHARE_SESSION_NOT_FOUND = 122, _AGAIN, "The broker does not keep this share session."
    INVALID_SHARE_SESSION_EPOCH = 123, _AGAIN, "The request is not the next one of its share session."
    FENCED_STATE_EPOCH = 124, _FINAL, "The share coordinator knows a newer epoch of this state."
    INVALID_VOTER_KEY = 125, _FINAL, "The key does not fit the receiving voter."
    DUPLICATE_VOTER = 126, _FINAL, "The voter is one already."
    VOTER_NOT_FOUND = 127, _FINAL, "There is no such voter."
    INVALID_REGULAR_EXPRESSION = 128, _FINAL, "The regular expression can't be compiled."
    REBOOTSTRAP_REQUIRED = 129, _FINAL, "The client must start again from its bootstrap servers."
    STREAMS_INVALID_TOPOLOGY = 130, _FINAL, "The streams topology is not valid."
    STREAMS_INVALID_TOPOLOGY_EPOCH = 131, _FINAL, "The streams topology's epoch is not valid."
    STREAMS_TOPOLOGY_FENCED = 132, _FINAL, "A newer streams topology has taken over."
    SHARE_SESSION_LIMIT_REACHED = 133, _AGAIN, "The broker keeps as many share sessions as it may."


def error_code(code: int) -> ErrorCode:
    """The error of a number on the wire; UNKNOWN_SERVER_ERROR for one that a newer peer may have."""
    return _BY_CODE.get(code, ErrorCode.UNKNOWN_SERVER_ERROR)


_BY_CODE: Final = {code.value: code for code in ErrorCode}


class KafkaError(Exception):
    """An error that travels in an answer: a code of the table, and what was wrong, where, and what to do."""

    def __init__(self, code: ErrorCode, message: str | None = None) -> None:
        super().__init__(message or code.sentence)
        self.code = code

    @property
    def message(self) -> str:
        """The sentence for the user: the one given, or the table's."""
        return str(self.args[0])

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code.name}, {self.message!r})"

    def __reduce__(self) -> tuple[object, ...]:
        # Subclasses take other arguments than an error keeps; a worker process sends its errors home pickled.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[KafkaError], args: tuple[object, ...], state: dict[str, object]) -> KafkaError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class WireError(ValueError):
    """Bytes that are no message of the class and version they were read as, or fields that can't be encoded.

    The message names the field, and the position for what was read.
    """
