"""Compiled loops over buffers and integers, in Cython's pure-Python mode, and nothing else."""
