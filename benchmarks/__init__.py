"""Measurements over real HTTP with a real server process. `python -m benchmarks --help` says how."""
