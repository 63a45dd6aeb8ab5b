"""Which value of a config holds, and where it comes from: what DescribeConfigs answers and what the log obeys.

A topic config is looked for in this order, and the first place that has it wins (KIP-226):

    DYNAMIC_TOPIC_CONFIG           set on the topic
    DYNAMIC_BROKER_CONFIG          its broker synonym, set on this broker while it runs
    DYNAMIC_DEFAULT_BROKER_CONFIG  the same, set for every broker
    STATIC_BROKER_CONFIG           the same, in the properties file
    DEFAULT_CONFIG                 the default

Where there are several synonyms (log.retention.ms, .minutes, .hours) the first that is set anywhere wins. `synonyms`
lists every place that has a value, the winner first.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import IntEnum
from typing import Final, NamedTuple

from millstream.core.config.broker_config import BrokerConfig, scaled
from millstream.core.config.broker_configs import BROKER_CONFIGS
from millstream.core.config.definition import ConfigError, ConfigKey, ConfigType, ConfigValue, Synonym
from millstream.core.config.group_configs import GROUP_CONFIGS
from millstream.core.config.topic_configs import TOPIC_CONFIGS

_log = logging.getLogger(__name__)


class ConfigSource(IntEnum):
    """Where a value comes from, numbered as DescribeConfigs sends it."""

    UNKNOWN = 0
    DYNAMIC_TOPIC_CONFIG = 1
    DYNAMIC_BROKER_CONFIG = 2
    DYNAMIC_DEFAULT_BROKER_CONFIG = 3
    STATIC_BROKER_CONFIG = 4
    DEFAULT_CONFIG = 5
    DYNAMIC_GROUP_CONFIG = 8


class ConfigSynonym(NamedTuple):
    """A place that has a value for a config. `text` is None for a secret."""

    name: str
    text: str | None
    source: ConfigSource


class ConfigEntry(NamedTuple):
    """The value of a config that holds. `text` is as shown to clients, None for a secret or where nothing is set."""

    key: ConfigKey
    value: ConfigValue
    text: str | None
    source: ConfigSource
    synonyms: tuple[ConfigSynonym, ...] = ()


EffectiveConfig = Mapping[str, ConfigEntry]
NO_CONFIGS: Final[Mapping[str, str]] = {}


class TopicConfigDefaults:
    """What every topic inherits from its broker; made once per change of broker configs, asked for each topic.

    A topic without settings of its own shares one mapping with all others like it.
    """

    def __init__(self, broker_config: BrokerConfig, dynamic_broker_configs: Mapping[str, Mapping[str, str]]) -> None:
        """Take the static configs and the dynamic ones, by node id as text, "" for every broker."""
        layers = _layers(broker_config, dynamic_broker_configs)
        self._entries: dict[str, ConfigEntry] = {
            key.name: _entry(key, key.synonyms, layers, ()) for key in TOPIC_CONFIGS.values()
        }

    def effective(self, topic_configs: Mapping[str, str]) -> EffectiveConfig:
        """Return every topic config as it holds for a topic with these settings of its own.

        A stored setting that is unknown or not valid here (another program may have written it) is passed over and
        logged; it never stops a broker.
        """
        if not topic_configs:
            return self._entries
        return _overridden(dict(self._entries), topic_configs, ConfigSource.DYNAMIC_TOPIC_CONFIG)


def _overridden(
    entries: dict[str, ConfigEntry], settings: Mapping[str, str], source: ConfigSource
) -> Mapping[str, ConfigEntry]:
    for name, text in settings.items():
        inherited = entries.get(name)
        if inherited is None:
            continue
        try:
            value = inherited.key.parse(text)
        except ConfigError as error:
            _log.warning("a stored config of a topic or group is passed over: %s", error)
            continue
        shown = inherited.key.render(value)
        synonym = ConfigSynonym(name, shown, source)
        entries[name] = ConfigEntry(inherited.key, value, shown, source, (synonym, *inherited.synonyms))
    return entries


def effective_topic_config(
    topic_overrides: Mapping[str, str],
    broker_config: BrokerConfig,
    dynamic_broker_configs: Mapping[str, Mapping[str, str]],
) -> EffectiveConfig:
    """Return every topic config as it holds for a topic; for many topics keep a `TopicConfigDefaults`."""
    return TopicConfigDefaults(broker_config, dynamic_broker_configs).effective(topic_overrides)


def effective_broker_config(
    broker_config: BrokerConfig, dynamic_broker_configs: Mapping[str, Mapping[str, str]]
) -> EffectiveConfig:
    """Return every broker config as it holds for this broker."""
    layers = _layers(broker_config, dynamic_broker_configs)
    return {key.name: _entry(key, key.synonyms or (Synonym(key.name),), layers, ()) for key in BROKER_CONFIGS.values()}


def effective_group_config(group_configs: Mapping[str, str], broker_config: BrokerConfig) -> EffectiveConfig:
    """Return every group config as it holds for a group with these of its own; the broker's say the others."""
    layers = _layers(broker_config, {})
    entries = {key.name: _entry(key, key.synonyms, layers, ()) for key in GROUP_CONFIGS.values()}
    return _overridden(entries, group_configs, ConfigSource.DYNAMIC_GROUP_CONFIG)


_Layers = tuple[tuple[ConfigSource, Mapping[str, str]], ...]


def _layers(broker_config: BrokerConfig, dynamic: Mapping[str, Mapping[str, str]]) -> _Layers:
    return (
        (ConfigSource.DYNAMIC_BROKER_CONFIG, dynamic.get(str(broker_config.node_id), NO_CONFIGS)),
        (ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG, dynamic.get("", NO_CONFIGS)),
        (ConfigSource.STATIC_BROKER_CONFIG, broker_config.texts),
    )


def _entry(
    key: ConfigKey, names: tuple[Synonym, ...], layers: _Layers, found: tuple[ConfigSynonym, ...]
) -> ConfigEntry:
    synonyms = list(found)
    value: ConfigValue = None
    source = ConfigSource.DEFAULT_CONFIG
    for synonym in names:
        broker_key = BROKER_CONFIGS[synonym.name]
        for layer, texts in layers:
            text = texts.get(synonym.name)
            if text is None or (layer is not ConfigSource.STATIC_BROKER_CONFIG and not broker_key.is_dynamic):
                continue
            try:
                set_here = broker_key.parse(text)
            except ConfigError as error:
                _log.warning("a stored broker config is passed over: %s", error)
                continue
            if source is ConfigSource.DEFAULT_CONFIG:
                value, source = scaled(set_here, synonym.factor), layer
            synonyms.append(ConfigSynonym(synonym.name, broker_key.render(set_here), layer))
    for synonym in names:
        default_key = BROKER_CONFIGS[synonym.name]
        # As Kafka has it: the default of another name in the chain is told only behind a value that is set.
        if default_key.default is not None and (synonyms or synonym is names[0]):
            synonyms.append(
                ConfigSynonym(default_key.name, default_key.render(default_key.default), ConfigSource.DEFAULT_CONFIG)
            )
    if source is ConfigSource.DEFAULT_CONFIG:
        value = key.default
    return ConfigEntry(key, value, key.render(value), source, tuple(synonyms))


assert all(
    synonym.name in BROKER_CONFIGS
    for key in (*TOPIC_CONFIGS.values(), *BROKER_CONFIGS.values(), *GROUP_CONFIGS.values())
    for synonym in key.synonyms
), "a synonym names no broker config"
assert all(key.type is not ConfigType.PASSWORD for key in TOPIC_CONFIGS.values()), "topics hold no secrets"
