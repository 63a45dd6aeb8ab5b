"""Spark source and sink, log slurper."""
