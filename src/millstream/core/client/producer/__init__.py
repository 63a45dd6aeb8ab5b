"""The producer on bytes; see `producer` for its journey of a record."""
