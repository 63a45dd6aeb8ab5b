"""Schemas: compatibility, registry, serdes."""
