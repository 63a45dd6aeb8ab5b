"""Sockets, one handler module per API, partitions, purgatory."""
