from typing import Final

from millstream.core._kernels.consumer_records import ConsumerRecord as ConsumerRecord
from millstream.core._kernels.record_accumulator import RecordHandle as RecordHandle
from millstream.core.client.blocking import ForkedError as ForkedError
from millstream.core.client.blocking.admin import Admin as Admin
from millstream.core.client.cluster import TopicPartition as TopicPartition
from millstream.core.client.consumer import ConsumerInterceptor as ConsumerInterceptor
from millstream.core.client.consumer import CorruptBatchError as CorruptBatchError
from millstream.core.client.consumer import RebalanceListener as RebalanceListener
from millstream.core.client.consumer import TopicPattern as TopicPattern
from millstream.core.client.group_offsets import CommittedOffset as CommittedOffset
from millstream.core.client.producer import ProducerInterceptor as ProducerInterceptor
from millstream.core.client.producer.batch import RecordMetadata as RecordMetadata
from millstream.core.client.producer.errors import BufferFullError as BufferFullError
from millstream.core.columns.blocking_consumer import Consumer as Consumer
from millstream.core.columns.blocking_producer import Producer as Producer
from millstream.core.columns.caller import ConcurrentUseError as ConcurrentUseError
from millstream.core.columns.sent_table import TableHandle as TableHandle
from millstream.core.columns.sent_table import TableMetadata as TableMetadata
from millstream.core.config import ConfigError as ConfigError
from millstream.core.net.buffer_pool import BufferPool as BufferPool
from millstream.core.wire import ErrorCode as ErrorCode
from millstream.core.wire import KafkaError as KafkaError

__version__: Final[str]
_HOMES: Final[dict[str, str]]
