"""Benchmarks: each prints what it measured beside a floor measured in the same run. `python -m bench --help`."""
