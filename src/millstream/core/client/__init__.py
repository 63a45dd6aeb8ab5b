"""The client on bytes: connections, metadata, produce, fetch, admin."""
