"""The platform: broker, log, protocol, client."""
