"""Load programs of bench/broker.py: raw protocol bytes over blocking sockets, so that the broker is measured.

Each program is its own process (`python -m bench.load.produce ...`) and prints one line of JSON.
"""
