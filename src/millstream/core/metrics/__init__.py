"""Counters, histograms, and their Prometheus text."""
