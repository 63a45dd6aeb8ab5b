"""The stateful stream-processing library."""
