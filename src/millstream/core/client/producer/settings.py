"""What a producer goes by, read from its configs and checked against each other as Kafka does."""

from __future__ import annotations

from dataclasses import dataclass

from millstream.core.config import ClientConfig, ConfigError
from millstream.core.records import Compression

IDEMPOTENT_IN_FLIGHT_MAX = 5
"""Batches of one producer and partition that a broker knows again (KIP-98); no more may be in flight."""

_ACKS = {"all": -1, "-1": -1, "0": 0, "1": 1}
_LEVELS = {Compression.GZIP: "gzip", Compression.LZ4: "lz4", Compression.ZSTD: "zstd"}


@dataclass(frozen=True, slots=True)
class ProducerSettings:
    """The configs that the sender acts on; times in ms, sizes in bytes."""

    acks: int = -1
    is_idempotent: bool = True
    in_flight_max: int = IDEMPOTENT_IN_FLIGHT_MAX
    retries: int = 2_147_483_647
    linger_ms: float = 5
    delivery_timeout_ms: float = 120_000
    request_timeout_ms: float = 30_000
    retry_backoff_ms: float = 100
    retry_backoff_max_ms: float = 1_000
    batch_size: int = 16_384
    max_request_size: int = 1_048_576
    buffer_memory: int = 33_554_432
    max_block_ms: float = 60_000
    compression: Compression = Compression.NONE
    compression_level: int | None = None
    ignore_keys: bool = False
    is_adaptive: bool = True
    availability_timeout_ms: float = 0
    metadata_max_idle_ms: float = 300_000
    metadata_max_age_ms: float = 300_000

    @classmethod
    def load(cls, config: ClientConfig) -> ProducerSettings:
        """Read them from a client's configs. Raises ConfigError for two that don't go together."""
        acks = _ACKS[config.string("acks")]
        in_flight = config.integer("max.in.flight.requests.per.connection")
        retries = config.integer("retries")
        idempotent = config.boolean("enable.idempotence")
        if config.string_or_none("transactional.id") is not None:
            raise ConfigError("transactional.id: this producer takes part in no transactions", name="transactional.id")
        if idempotent:
            # As in Kafka: idempotence that was asked for has to be possible, a mere default gives way; but not to more
            # requests in flight, without it those need it turned off by name.
            if in_flight > IDEMPOTENT_IN_FLIGHT_MAX:
                name = "max.in.flight.requests.per.connection"
                raise ConfigError(
                    f"{name}: with enable.idempotence it is at most {IDEMPOTENT_IN_FLIGHT_MAX}, not {in_flight}",
                    name=name,
                )
            hindrance = (
                ("acks", "acks is all") if acks != -1 else ("retries", "retries is above 0") if retries == 0 else None
            )
            if hindrance is not None:
                if "enable.idempotence" in config.given:
                    raise ConfigError(f"{hindrance[0]}: with enable.idempotence {hindrance[1]}", name=hindrance[0])
                idempotent = False
        linger, delivery = config.integer("linger.ms"), config.integer("delivery.timeout.ms")
        request = config.integer("request.timeout.ms")
        if delivery < linger + request:
            if "delivery.timeout.ms" in config.given:
                raise ConfigError(
                    f"delivery.timeout.ms: {delivery} is below linger.ms + request.timeout.ms, {linger + request}",
                    name="delivery.timeout.ms",
                )
            delivery = linger + request
        compression = Compression[config.string("compression.type").upper()]
        level = _LEVELS.get(compression)
        return cls(
            acks=acks,
            is_idempotent=idempotent,
            in_flight_max=in_flight,
            retries=retries,
            linger_ms=linger,
            delivery_timeout_ms=delivery,
            request_timeout_ms=request,
            retry_backoff_ms=config.integer("retry.backoff.ms"),
            retry_backoff_max_ms=config.integer("retry.backoff.max.ms"),
            batch_size=config.integer("batch.size"),
            max_request_size=config.integer("max.request.size"),
            buffer_memory=config.integer("buffer.memory"),
            max_block_ms=config.integer("max.block.ms"),
            compression=compression,
            compression_level=None if level is None else config.integer(f"compression.{level}.level"),
            ignore_keys=config.boolean("partitioner.ignore.keys"),
            is_adaptive=config.boolean("partitioner.adaptive.partitioning.enable"),
            availability_timeout_ms=config.integer("partitioner.availability.timeout.ms"),
            metadata_max_idle_ms=config.integer("metadata.max.idle.ms"),
            metadata_max_age_ms=config.integer("metadata.max.age.ms"),
        )
