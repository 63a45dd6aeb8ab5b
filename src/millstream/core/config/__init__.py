"""Tables of configuration names, types, defaults and documentation; which value holds, and where it comes from.

`BrokerConfig.load` reads a server.properties file; `TopicConfigDefaults` and `effective_topic_config` answer what holds
for a topic; `TOPIC_CONFIGS` and `BROKER_CONFIGS` are the tables.
"""

from millstream.core.config.broker_config import BrokerConfig
from millstream.core.config.broker_configs import BROKER_CONFIGS
from millstream.core.config.client_config import ClientConfig
from millstream.core.config.client_configs import ADMIN_CONFIGS, CONSUMER_CONFIGS, PRODUCER_CONFIGS
from millstream.core.config.definition import (
    ConfigDef,
    ConfigError,
    ConfigKey,
    ConfigType,
    ConfigValue,
    Importance,
    Synonym,
    UpdateMode,
)
from millstream.core.config.dynamic_configs import update_mode, validate_dynamic_configs
from millstream.core.config.effective import (
    ConfigEntry,
    ConfigSource,
    ConfigSynonym,
    EffectiveConfig,
    TopicConfigDefaults,
    effective_broker_config,
    effective_group_config,
    effective_topic_config,
)
from millstream.core.config.group_configs import GROUP_CONFIGS, validate_group_configs
from millstream.core.config.listeners import Listener, parse_host_port
from millstream.core.config.properties import PropertiesError, Property, read_properties
from millstream.core.config.topic_configs import TOPIC_CONFIGS, validate_topic_configs

__all__ = [
    "ADMIN_CONFIGS",
    "BROKER_CONFIGS",
    "CONSUMER_CONFIGS",
    "GROUP_CONFIGS",
    "PRODUCER_CONFIGS",
    "TOPIC_CONFIGS",
    "BrokerConfig",
    "ClientConfig",
    "ConfigDef",
    "ConfigEntry",
    "ConfigError",
    "ConfigKey",
    "ConfigSource",
    "ConfigSynonym",
    "ConfigType",
    "ConfigValue",
    "EffectiveConfig",
    "Importance",
    "Listener",
    "PropertiesError",
    "Property",
    "Synonym",
    "TopicConfigDefaults",
    "UpdateMode",
    "effective_broker_config",
    "effective_group_config",
    "effective_topic_config",
    "parse_host_port",
    "read_properties",
    "update_mode",
    "validate_dynamic_configs",
    "validate_group_configs",
    "validate_topic_configs",
]
